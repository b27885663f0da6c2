"""An ordinary user runs containers."""

from __future__ import annotations

from conftest import USER


def test_an_ordinary_user_runs_a_container(as_user) -> None:
    done = as_user(
        "import locule, os\n"
        "done = locule.run(['sh', '-c', 'id -u; echo $$; cat'], input='in', capture_output=True,\n"
        "                  text=True, timeout=30)\n"
        "print(os.getuid(), done.returncode, done.stdout.split(), done.stderr)\n"
        "print(locule.default_runtime().state_dir.startswith(os.environ['XDG_RUNTIME_DIR']))\n"
        "print(locule.default_runtime().list())\n"
    )
    assert done.stdout.splitlines() == [
        f"{USER} 0 ['0', '1', 'in'] ", "True", "[]",
    ], done.stderr


def test_an_ordinary_user_execs_and_mounts(as_user) -> None:
    done = as_user(
        "import locule, os\n"
        "home = os.environ['XDG_RUNTIME_DIR']\n"
        "with locule.default_runtime().create(['sleep', '60'], mounts=[home + ':/mnt:rw'],\n"
        "                                     stdin=locule.DEVNULL) as c:\n"
        "    c.start()\n"
        "    print(c.run(['sh', '-c', 'echo x > /mnt/made; id -u'], capture_output=True,\n"
        "          text=True).stdout.strip())\n"
        "print(os.stat(home + '/made').st_uid)\n"
    )
    assert done.stdout.split() == ["0", USER], done.stderr
