"""The queue on disk between the daemon and the broker, a SQLite database.

`Outbox.append_many` in `queue` writes events to disk: one transaction with an `INSERT INTO events` for each,
which also gives the sequence and keeps the bounds. `writer` collects events of all threads and calls it;
`file` below it opens, repairs and locks the database and knows nothing of events. `ages` is for the age
limit, `faults` reports what is wrong. `dead_letters` is what `emotion-edge outbox` does beside a daemon.
"""
