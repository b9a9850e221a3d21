"""A hub on 127.0.0.1 that speaks exactly the routes that the real client uses for models, with everything in memory.

An unknown route is answered 501 and noted in `faults`, as is an upload whose hash or size is not what was announced;
the fixture `hub` (tests/conftest.py) fails a test that leaves a fault. `log` is every request as "METHOD path".
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".model")


@dataclass
class Repo:
    """Branches name commits, commits hold {path: content}. `gated` files need one of `readers`' tokens."""

    private: bool = False
    gated: bool = False
    readers: tuple[str, ...] = ()
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files, branch="main", message=""):
        """Make `files` the whole content of a branch and return the commit's name."""
        state = f"{len(self.commits)}{branch}{sorted((name, hash(data)) for name, data in files.items())}"
        sha = hashlib.sha1(state.encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def resolve(self, revision):
        """Return the full name of the commit, or None."""
        if revision in self.branches:
            return self.branches[revision]
        found = [sha for sha in self.commits if len(revision) >= 7 and sha.startswith(revision)]
        return found[0] if found else None

    @property
    def head(self):
        """The files of main."""
        return self.commits[self.branches["main"]]


class LoopbackHub(ThreadingHTTPServer):
    """The server; `repos` by name, `writers` the tokens that may create and push."""

    daemon_threads = True

    def __init__(self):
        # Bound but not listening: until `start`, whoever asks this address is refused at once.
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.server_bind()
        self.address = f"http://127.0.0.1:{self.server_port}"
        # Large files come from another host, which gets no token.
        self.files_address = f"http://localhost:{self.server_port}"
        self.forget()

    def forget(self):
        """Empty the hub."""
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.writers = {"hf_writer"}
        self.log: list[str] = []
        self.faults: list[str] = []
        self.down = False

    def start(self):
        """Listen and answer, in a thread."""
        self.server_activate()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def add(self, name, files, **settings):
        """Make a repository with the files {path: bytes or str}, or those of a folder, in one commit; return it."""
        if hasattr(files, "rglob"):
            files = {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}
        repo = self.repos[name] = Repo(**settings)
        repo.commit({path: data if isinstance(data, bytes) else data.encode() for path, data in files.items()})
        return repo

    def requests(self, method=""):
        """Return the requests since the last call of this, those of one method."""
        found = [line for line in self.log if line.startswith(method)]
        self.log.clear()
        return found


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        self.route("GET")

    def do_HEAD(self):
        self.route("HEAD")

    def do_POST(self):
        self.route("POST")

    def do_PUT(self):
        self.route("PUT")

    def route(self, method):
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(url.path)
        self.server.log.append(f"{method} {path}")
        if self.server.down:
            return self.answer(503, {"error": "down"})
        for verb, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if verb == method and match:
                return action(self, *match.groups())
        if method == "HEAD" and (match := re.fullmatch(RESOLVE, path)):
            return self.resolve(*match.groups())
        self.server.faults.append(f"unknown route: {method} {self.path}")
        return self.answer(501, {"error": "no such route"})

    # --- answers ----------------------------------------------------------------------------------------------------

    def answer(self, status, value=None, **headers):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status, code, message=""):
        self.answer(status, {"error": message or code}, X_Error_Code=code, X_Error_Message=message or code)

    def token(self):
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def repo(self, name):
        """Return the repository if the token may know of it, else answer as the hub does: as if there were none."""
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and self.token() not in (*repo.readers, *self.server.writers)):
            self.refuse(404 if self.token() else 401, "RepoNotFound", "Repository not found")
            return None
        return repo

    def may_write(self):
        if self.token() in self.server.writers:
            return True
        self.answer(403, {"error": "no write access"})
        return False

    # --- reading ----------------------------------------------------------------------------------------------------

    def model_info(self, name, revision="main"):
        if (repo := self.repo(name)) is None:
            return None
        if (sha := repo.resolve(revision)) is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = [{"rfilename": path} for path in repo.commits[sha]]
        return self.answer(
            200, {"_id": "1", "id": name, "sha": sha, "private": repo.private, "tags": [], "siblings": siblings}
        )

    def resolve(self, name, revision, path):
        if (repo := self.repo(name)) is None:
            return None
        if repo.gated and self.token() not in repo.readers:
            return self.refuse(403, "GatedRepo", f"Access to model {name} is restricted")
        if (sha := repo.resolve(revision)) is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        data = repo.commits[sha].get(path)
        if data is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        if path.endswith(LFS_SUFFIXES):
            oid = hashlib.sha256(data).hexdigest()
            self.server.objects[oid] = data
            return self.answer(
                302, b"", Location=f"{self.server.files_address}/cdn/{oid}", X_Repo_Commit=sha,
                X_Linked_ETag=f'"{oid}"', X_Linked_Size=str(len(data)),
            )  # fmt: skip
        etag = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        return self.answer(200, data, ETag=f'"{etag}"', X_Repo_Commit=sha)

    def cdn(self, oid):
        data = self.server.objects[oid]
        if (wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")) and wanted[1] != "0":
            part = data[int(wanted[1]) :]
            return self.answer(206, part, Content_Range=f"bytes {wanted[1]}-{len(data) - 1}/{len(data)}")
        return self.answer(200, data, ETag=f'"{oid}"')

    # --- writing ----------------------------------------------------------------------------------------------------

    def create(self):
        if not self.may_write():
            return None
        asked = json.loads(self.body)
        name = f"{asked['organization'] or 'writer'}/{asked['name']}"
        status = 409 if name in self.server.repos else 200
        if status == 200:
            private = asked.get("private") is True or asked.get("visibility") == "private"
            self.server.add(name, {".gitattributes": "*.safetensors filter=lfs"}, private=private)
        return self.answer(
            status, {"url": f"{self.server.address}/{name}", "error": "You already created this model repo"}
        )

    def branch(self, name, branch):
        if not self.may_write() or (repo := self.repo(name)) is None:
            return None
        if branch in repo.branches:
            return self.answer(409, {"error": "Reference already exists"})
        repo.branches[branch] = repo.branches["main"]
        return self.answer(200, {})

    def preupload(self, name, revision):
        if not self.may_write() or (repo := self.repo(name)) is None:
            return None
        if repo.resolve(revision) is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        mode = {True: "lfs", False: "regular"}
        files = [file["path"] for file in json.loads(self.body)["files"]]
        told = [
            {"path": path, "uploadMode": mode[path.endswith(LFS_SUFFIXES)], "shouldIgnore": False} for path in files
        ]
        return self.answer(200, {"files": told})

    def batch(self, name):
        if not self.may_write() or self.repo(name) is None:
            return None
        objects = []
        for each in json.loads(self.body)["objects"]:
            oid, size = each["oid"], each["size"]
            there = oid in self.server.objects
            upload = {"upload": {"href": f"{self.server.address}/upload/{oid}/{size}"}}
            objects.append({"oid": oid, "size": size, **({} if there else {"actions": upload})})
        return self.answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid, size):
        if hashlib.sha256(self.body).hexdigest() != oid or len(self.body) != int(size):
            self.server.faults.append(f"upload of {oid}: another hash or size")
            return self.answer(400, {"error": "wrong hash"})
        self.server.objects[oid] = self.body
        return self.answer(200, {})

    def validate_yaml(self):
        content = json.loads(self.body)["content"]
        return self.answer(
            200 if content.startswith("---") else 400, {"errors": [{"message": "no metadata"}], "warnings": []}
        )

    def commit(self, name, revision):
        if not self.may_write() or (repo := self.repo(name)) is None:
            return None
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        base = repo.resolve(revision)
        if base is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if header.get("parentCommit", base) != base:
            return self.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        files = dict(repo.commits[base])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    self.server.faults.append(f"commit of {value['path']}: {value['oid']} was not uploaded")
                files[value["path"]] = self.server.objects[value["oid"]]
            else:
                assert line["key"] == "deletedFile", line["key"]
                del files[value["path"]]
        as_request = self.query.get("create_pr") == ["1"]
        message = "\n\n".join(filter(None, (header["summary"], header["description"])))
        sha = repo.commit(files, "refs/pr/1" if as_request else revision, message)
        address = f"{self.server.address}/{name}"
        told = {"commitUrl": f"{address}/commit/{sha}", "commitOid": sha, "success": True}
        return self.answer(200, {**told, "pullRequestUrl": f"{address}/discussions/1"} if as_request else told)


NAME = r"([\w.-]+(?:/[\w.-]+)?)"
RESOLVE = rf"/{NAME}/resolve/(refs/pr/\d+|[^/]+)/(.+)"
ROUTES = (
    ("GET", rf"/api/models/{NAME}", Handler.model_info),
    ("GET", rf"/api/models/{NAME}/revision/(.+)", Handler.model_info),
    ("GET", RESOLVE, Handler.resolve),
    ("GET", r"/cdn/(\w+)", Handler.cdn),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", rf"/api/models/{NAME}/branch/(.+)", Handler.branch),
    ("POST", rf"/api/models/{NAME}/preupload/(.+)", Handler.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/upload/(\w+)/(\d+)", Handler.upload),
    ("POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("POST", rf"/api/models/{NAME}/commit/(.+)", Handler.commit),
)
