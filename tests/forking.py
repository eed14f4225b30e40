"""A lender of nothing: runs generators in forked processes, as the package `spaces` does."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from typing import Any

Task = Callable[..., Iterator[Any]]
END = "end"


def lend(task: Task) -> Task:
    """`spaces.GPU`, as far as it can be seen; errors come back without their words."""
    context = multiprocessing.get_context("fork")

    def work(arguments: Any, results: Any, stop: Any) -> None:
        def iterate() -> None:  # in a thread, as there
            try:
                for each in task(*arguments.get()):
                    if stop.is_set():
                        break
                    results.put(("found", each))
                results.put((END, ""))
            except Exception as error:  # noqa: BLE001 – as there
                results.put(("error", type(error).__name__))

        thread = threading.Thread(target=iterate)
        thread.start()
        thread.join()

    def lent(*given: Any) -> Iterator[Any]:
        arguments, results, stop = context.SimpleQueue(), context.SimpleQueue(), context.Event()
        process = context.Process(target=work, args=(arguments, results, stop), daemon=True)
        process.start()
        arguments.put(given)
        try:
            while (found := results.get())[0] == "found":
                yield found[1]
            if found[0] != END:
                raise RuntimeError(found[1])
        finally:
            stop.set()
            process.join(60)

    return lent
