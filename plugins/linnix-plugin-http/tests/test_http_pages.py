"""The files of the dashboard: what is served, as what, and what is not."""

from starlette.requests import Request

from linnix_plugin_http.pages import Pages


def served(pages, path, **headers):
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": raw, "query_string": b""}
    return pages.serve(Request(scope))


def test_files_have_their_places_and_types(tmp_path):
    (tmp_path / "views").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "app.js").write_text("export {}")
    (tmp_path / "views" / "tree.css").write_text("a {}")
    (tmp_path / "README.md").write_text("not for browsers")
    (tmp_path / "noending").write_text("nor this")
    pages = Pages(tmp_path)
    assert served(pages, "/").headers["content-type"] == "text/html; charset=utf-8"
    assert served(pages, "/dashboard").body == b"<!doctype html>"
    assert served(pages, "/assets/app.js").headers["content-type"].startswith("text/javascript")
    assert served(pages, "/assets/views/tree.css").headers["content-type"].startswith("text/css")
    for path in (
        "/assets/README.md",
        "/assets/noending",
        "/assets/",
        "/assets/views",
        "/assets/../pages.py",
        "/assets//etc/passwd",
        "/app.js",
    ):
        assert served(pages, path) is None, path


def test_a_browser_that_has_it_gets_a_short_answer(tmp_path):
    (tmp_path / "app.js").write_text("export {}")
    pages = Pages(tmp_path)
    first = served(pages, "/assets/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = served(pages, "/assets/app.js", if_none_match=first.headers["etag"])
    assert (again.status_code, again.body) == (304, b"")
    assert served(pages, "/assets/app.js", if_none_match='"other"').status_code == 200


def test_without_a_dashboard_nothing_is_at_the_root(serve):
    _, client = serve(http={"dashboard": False})
    assert client.refused("/")[0] == 404
    assert client.refused("/assets/app.js")[0] == 404
