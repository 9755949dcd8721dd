"""The evaluation as one self-contained HTML page: charts as inline SVG, tables, licences."""
