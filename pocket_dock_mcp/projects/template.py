"""Pure: the files of a new project."""

from __future__ import annotations

import json

IGNORED = """\
# What containers of this project have left here is of this machine.
/instances/
"""

_TEMPLATE = """\
# The configuration of this project for pocket-dock; it holds in this directory and all below it.
# What stands behind a '#' is the default. What is not set here, ~/.pocket-dock/pocket-dock.yaml may set;
# an argument or an environment variable outweighs both.

project_name: {name}

# The image profile (or image) of containers that name none.
#default_profile: minimal

# Whether containers are kept beyond the program that makes them, unless it says.
#default_persist: false

# The engine: podman, docker, or an address such as unix:///run/podman/podman.sock.
# Unset: the first one that answers.
#socket:

# What is said on standard error: debug, info, warning or error.
#log_level: warning

# What containers of this project get unless whoever makes them says otherwise.
containers:
  # Seconds without use after which one ends (a kept one stops); unset: none does.
  #idle_timeout:

  # Memory, such as 512m or 2GB.
  #mem_limit: 512m

  # CPU time; 100 is one core.
  #cpu_percent: 100

  # none, packages, open or a list of domains; unset: what the profile says.
  #network:

  # Environment variables of all that runs inside. Programs there can read them: this is no place for secrets.
  #env:
  #  LANG: C.UTF-8

# History and output of what is run; see .pocket-dock/instances, and: pocket-dock logs
logging:
  # Whether output is kept. The history, which has none, always is.
  #auto_log: true

  # Which of both streams are.
  #log_stdout: true
  #log_stderr: true

  # A log that is larger goes on in a new file; of the older ones the last stays.
  #max_log_size: 10MB

  # The oldest beyond this number go; and what is older than so many days.
  #max_logs_per_instance: 100
  #retention_days: 30
"""


def template(project_name: str) -> str:
    """Return the configuration of a new project, with every key and its default."""
    # Quoted: a name may look like a number or a boolean.
    return _TEMPLATE.format(name=json.dumps(project_name))
