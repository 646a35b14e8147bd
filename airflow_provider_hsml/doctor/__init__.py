"""
``hsml-doctor``: asks a Hopsworks how it answers, and compares the answers with those that this provider expects.

No answer of a real cluster was recorded while the provider was written: it is built on public sources and on the
official SDKs. A user of a real cluster runs the doctor once and attaches its report to an issue. The modules:

- ``asking``: one request, and its answer as a value, whatever the status
- ``known``: the cluster as far as it is known, by which the requests are made
- ``check``: a question, the answers that are expected by line of Hopsworks, and the verdict
- ``checks``: the table of checks that only read, with the readers of answers in ``reading``
- ``examine``: runs checks
- ``questions``: the table of questions to a deployment of the doctor's own; ``trial`` makes and deletes it, with the
  model of ``own_model``, and ``write`` takes the steps
- ``unasked``: open questions that are not asked, with the reasons
- ``diagnose``: one run on a connection
- ``redact``: removes names and keys from texts
- ``report``: the report as text and as JSON
- ``cli``: the command
"""
