"""One module for each further measure: eyes, mouth, fatigue, video, fusion, active speaker."""
