"""`anytime demo`, as far as it starts no server."""

from client.fakes import fake_http_server


def test_another_program_at_the_address_is_left_alone(anytime, tmp_path):
    with fake_http_server() as server:
        done = anytime(server.url, "demo", "--out", tmp_path)
    assert (done.returncode, b"another program answers" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_no_server_is_started_on_another_machine(anytime, tmp_path):
    done = anytime("http://192.0.2.1:1", "--timeout-s", "1", "demo", "--out", tmp_path)
    assert done.returncode == 2
    assert b"only a local one is started" in done.stderr
