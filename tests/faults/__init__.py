"""
The fault matrix: every request of every operation, spoilt in every way, and judged on the server.

A *cell* is an operation, a line of Hopsworks, a route for predictions, a worker or a worker with a triggerer, one
request of the operation, and one fault at that request. ``operations`` has the operations, ``catalogue`` the faults,
``proxy`` the place between provider and server where they happen, ``plot`` the project of the server that each cell
has for itself, ``cell`` how one cell is played, ``judge`` how it is judged, ``matrix`` which cells there are,
``report`` the table. ``killed`` and ``processes`` are small groups of their own: servers that are killed with -9 and
come back, and promoters in two processes.

A cell *survives* when all of this holds:

- The task succeeds, or fails with an error of the provider, after which the same task succeeds without the fault. It is
  run once more as Airflow's retry; after a permanent error as a task that a person has cleared, with a new run key.
- Whenever the task is green, the server is as the operation promises: the version that answers, and how it answers.
- There is one deployment. No file and no model version is left over that nothing refers to.
- The change was carried out at most once, and its way back at most once, over all tries. Where a try timed out because
  the machine was overloaded, the task is tried once more, and may stop and start once more to make room.
- No version that answers well was rolled back or rejected.
- A rolling change, however it ended, leaves a version that answers.
- No request was sent to a server whose certificate is not trusted.
- The API key is in no exception, with causes, in no log record, XCom, event or serialized trigger, and was sent to no
  other server.

*Carried out* is meant literally. The proxy compares what the server has stored before and after each request that may
change something: the deployments with their versions, revisions and whether they are started, and the registered
model versions. A request that leaves all of that as it was is no change, whatever it was answered: a second PUT of the
same content, a START that is refused. So repeating is free, and doing a thing twice is not.

Three things are outside of this. A server that says of an existing deployment, with Hopsworks' own code, that it does
not exist is believed by those operations that are satisfied with its absence (stop, delete), a record lacks a
version of which it says so, and a bad version that is there again counts as another client's. A change that another
client makes after the last read of a task cannot be in its result; so the task runs once more before it is judged. A
registration that is broken off after it has made the folder of a new version and before its note, while the server
cannot be reached to delete the folder, cannot know later whether the folder is another task's: one empty folder stays,
and the retry takes the next number.

Some operations are done once for each run key: a restart, a rollback to the previous version, a try of a version that
fails. A person who clears such a task asks for it again.
"""
