"""Run what a language model writes: code blocks of its messages, in one session of one sandbox.

    python examples/llm_code_execution.py [--model COMMAND] [--question TEXT] [--file PATH]

This is the loop of a data analyst agent. Each message of the model is looked through for code blocks; Python
runs in an interpreter that stays, so that variables live on, and shell commands beside it; what came of them
is the next message to the model, until it writes no code any more.

Without --model a recorded conversation is replayed, a mistake of the model included. With it, COMMAND is
started for each turn: it gets the conversation as JSON (a list of {"role", "content"}) on standard input and
prints the model's next message, so any model with a command line can be the analyst.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pocket_dock_mcp import Container, ExecResult, Session, create_new_container

DATA = Path(__file__).parent / "data"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MAX_TURNS = 12
SHOWN = 4_000
"""Characters of output that go back to the model."""

Message = dict[str, str]
Model = Callable[[list[Message]], str]


def recorded() -> list[Message]:
    """Return the recorded conversation."""
    return [json.loads(line) for line in (DATA / "analyst.jsonl").read_text().splitlines()]


def replayed() -> Model:
    """Return a model that says what was recorded."""
    said = iter([message["content"] for message in recorded() if message["role"] == "assistant"])
    return lambda _conversation: next(said)


def commanded(command: str) -> Model:
    """Return a model that a command asks."""

    def ask(conversation: list[Message]) -> str:
        told = json.dumps(conversation)
        return subprocess.run(command, shell=True, input=told, text=True, check=True, stdout=-1).stdout

    return ask


def observation(result: ExecResult) -> str:
    """Return what the model is told of a run: how it ended, the value, what was printed."""
    parts = [f"[{result.status}]"]
    parts += [text.strip() for text in (result.stdout, result.stderr) if text.strip()]
    if result.value is not None:
        parts.append(f"value: {result.value}")
    return "\n".join(parts)[:SHOWN]


def run_blocks(box: Container, python: Session, message: str) -> list[str]:
    """Run the code blocks of a message, one after the other, and return what came of each."""
    observations = []
    for language, code in BLOCK.findall(message):
        if language == "python":
            result = python.send_and_wait(code, timeout=60)
        else:
            result = box.run(code, lang="bash", timeout=60)
        observations.append(observation(result))
    return observations


def analyse(model: Model, question: str, file: Path) -> str:
    """Have the model answer a question about a file."""
    conversation: list[Message] = [{"role": "user", "content": question}]
    with (
        create_new_container(mem_limit="256m", on_progress=print) as box,
        box.session(lang="python") as python,
    ):
        box.push(str(file), file.name)
        for _ in range(MAX_TURNS):
            message = model(conversation)
            print(f"\n--- model\n{message}")
            conversation.append({"role": "assistant", "content": message})
            observations = run_blocks(box, python, message)
            if not observations:
                return message
            told = "\n".join(observations)
            print(f"--- sandbox\n{told}")
            conversation.append({"role": "user", "content": told})
    sys.exit(f"no answer after {MAX_TURNS} turns")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", metavar="COMMAND", help="prints the next message of a conversation")
    parser.add_argument(
        "--question", default=json.loads((DATA / "analyst.jsonl").read_text().splitlines()[0])["content"]
    )
    parser.add_argument("--file", type=Path, default=DATA / "tzdata.zi", help="what it is about")
    arguments = parser.parse_args()
    model = commanded(arguments.model) if arguments.model else replayed()
    analyse(model, arguments.question, arguments.file)


if __name__ == "__main__":
    main()
