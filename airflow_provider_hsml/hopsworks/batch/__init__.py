"""
Score a table through a deployment: rows of any number in, parts of a result out, in constant memory.

The rules that make the result correct after every interruption:

1. The input is cut into chunks at fixed rows. A chunk is one request, unless some of its rows are refused.
2. Answers are held back until the deployment was read again, and was unchanged. Then they are written as one part.
3. A part has the try in its name, and is never overwritten. The progress of a try is one file, written after each part.
4. A later try of the same run continues after the last part of the try that came furthest. Rows are sent at least once.
5. The manifest is written once, last, and only if there is none. Only the parts that it names are the result, so that a
   try that Airflow has given up, and which still runs, cannot change it.

``table`` is the engine; ``rows`` makes requests of rows; ``held`` has the rows of the result until they are written;
``served`` reads the deployment; ``progress`` is what is stored; ``statistics`` counts.
"""
