"""One module for each measure that is not a single face or voice: eyes, mouth, fatigue, video, fusion, speaker."""
