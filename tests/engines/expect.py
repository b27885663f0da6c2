"""What a case says of what it finds."""

import threading
import time


class Failed(Exception):
    """A case has found something that is not as it should be."""


class Skipped(Exception):
    """A case cannot be tried here, for want of what this says."""


def expect(fine, words):
    if not fine:
        raise Failed(words)


def equal(what, got, wanted):
    expect(got == wanted, f"{what}: {got!r} and not {wanted!r}")


def has(what, text, words):
    expect(words in text, f"{what} has no {words!r}: {text!r}")


def eventually(what, fine, seconds=10):
    """Waits until something is true, and returns it."""
    end = time.monotonic() + seconds
    while True:
        if found := fine():
            return found
        expect(time.monotonic() < end, f"not within {seconds} seconds: {what}")
        time.sleep(0.05)


def at_once(count, act):
    """Does something in as many threads, and hands on what went wrong in the first of them."""
    wrong = []

    def one(number):
        try:
            act(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=one, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
