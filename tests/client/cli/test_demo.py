"""`anytime demo`, as far as it starts no server."""

import shutil

from client.fakes import fake_http_server, free_port


def test_another_program_at_the_address_is_left_alone(anytime, tmp_path):
    with fake_http_server() as server:
        done = anytime(server.url, "demo", "--out", tmp_path)
    assert (done.returncode, b"another program answers" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_no_server_is_started_on_another_machine(anytime, tmp_path):
    done = anytime("http://192.0.2.1:1", "--timeout-s", "1", "demo", "--out", tmp_path)
    assert done.returncode == 2
    assert b"only a local one is started" in done.stderr


def test_a_server_that_lacks_a_package_is_told_in_its_own_words(anytime, tmp_path, monkeypatch):
    program = tmp_path / "anytime-server"
    program.write_text("#!/bin/sh\necho 'the package fastapi is not installed here' >&2\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: str(program))
    done = anytime(f"http://127.0.0.1:{free_port()}", "demo", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert b"ended with 2: the package fastapi is not installed here" in done.stderr
