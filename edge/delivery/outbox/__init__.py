"""The queue on disk between the daemon and the broker, a SQLite database.

`Outbox.append_many` in `queue` writes events to disk: one transaction with an `INSERT INTO events` for each,
which also gives the sequence and keeps the bounds. `writer` collects events of all threads and calls it;
`file` below it opens, repairs and locks the database and knows nothing of events.
`ages` is for the age limit, `faults` reports what is wrong. `rows` has the tables, their rows as values, and
the checks that find damaged ones. `write_ahead_log` finds damage in SQLite's log, `salvage` copies what can
be read of a damaged database, and `high_water_mark` keeps the numbers that may have been given.
`dead_letters` is what `emotion-edge outbox` does beside a daemon.
"""
