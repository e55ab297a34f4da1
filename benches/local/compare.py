"""The local proxy beside nginx, haproxy and caddy: same machine, same minute, one worker each, rounds interleaved.

    cargo xtask bench local [--rounds 3] [--seconds 3]

Needs nginx and wrk; haproxy and caddy are measured where they are installed. Prints medians and their ratio to nginx.
Only ratios of one run mean something: the machine's other work changes all figures alike.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

SERVER, WHIM, NGINX, HAPROXY, CADDY = 19000, 19001, 19002, 19003, 19004
ECHO, WHIM_ECHO = 19005, 19006


def wait_for(port):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    sys.exit(f"nothing listens on {port}")


def nginx_config(directory, port, body):
    return f"""daemon off; worker_processes 1; error_log {directory}/error.log; pid {directory}/{port}.pid;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
uwsgi_temp_path {directory}; scgi_temp_path {directory}; sendfile on; keepalive_requests 1000000;
upstream server {{ server 127.0.0.1:{SERVER}; keepalive 128; keepalive_requests 1000000; }}
map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
server {{ listen 127.0.0.1:{port}; {body} }} }}"""


class Peers:
    def __init__(self, binary):
        self.directory = tempfile.mkdtemp(prefix="whim-bench-")
        self.processes = []
        self.pids = {}
        with open(f"{self.directory}/1k", "wb") as file:
            file.write(b"x" * 1024)
        with open(f"{self.directory}/100m", "wb") as file:
            file.truncate(100 * 1024 * 1024)
        self.nginx(SERVER, f"root {self.directory};")
        self.start([binary, f"127.0.0.1:{WHIM}", f"127.0.0.1:{SERVER}"], WHIM)
        self.names = {"whim": WHIM}
        threading.Thread(target=echo_server, daemon=True).start()
        wait_for(ECHO)
        self.start([binary, f"127.0.0.1:{WHIM_ECHO}", f"127.0.0.1:{ECHO}"], WHIM_ECHO)
        self.nginx(
            NGINX,
            "location / { proxy_pass http://server; proxy_http_version 1.1; proxy_buffering off; "
            'proxy_set_header Connection $connection_upgrade; proxy_set_header Upgrade $http_upgrade; } '
            f"location /echo {{ proxy_pass http://127.0.0.1:{ECHO}; proxy_http_version 1.1; "
            "proxy_set_header Connection $connection_upgrade; proxy_set_header Upgrade $http_upgrade; }",
        )
        self.names["nginx"] = NGINX
        if shutil.which("haproxy"):
            path = pathlib.Path(self.directory, "haproxy.cfg")
            path.write_text(
                "global\n nbthread 1\n maxconn 4096\ndefaults\n mode http\n timeout client 60s\n timeout server 60s\n"
                " timeout connect 5s\n http-reuse always\n"
                f"frontend f\n bind 127.0.0.1:{HAPROXY}\n default_backend b\nbackend b\n server s 127.0.0.1:{SERVER}\n"
            )
            self.start(["haproxy", "-db", "-f", str(path)], HAPROXY)
            self.names["haproxy"] = HAPROXY
        if shutil.which("caddy"):
            path = pathlib.Path(self.directory, "Caddyfile")
            path.write_text(
                "{\n admin off\n auto_https off\n}\n"
                # Under any name: the requests' is that of a preview.
                f"http://:{CADDY} {{\n bind 127.0.0.1\n reverse_proxy 127.0.0.1:{SERVER}\n}}\n"
            )
            environment = {**os.environ, "GOMAXPROCS": "1"}
            self.start(["caddy", "run", "--config", str(path)], CADDY, environment)
            self.names["caddy"] = CADDY

    def nginx(self, port, body):
        path = pathlib.Path(self.directory, f"{port}.conf")
        path.write_text(nginx_config(self.directory, port, body))
        self.start(["nginx", "-c", str(path), "-p", self.directory], port)

    def start(self, command, port, environment=None):
        null = subprocess.DEVNULL
        self.processes.append(subprocess.Popen(command, stdout=null, stderr=null, env=environment))
        self.pids[port] = self.processes[-1].pid
        wait_for(port)

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory)


def load(port, connections, seconds, path="/1k"):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", "X-Whim-Token: bench"]
    output = subprocess.run([*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(output)
    units = {"us": 1, "ms": 1000, "s": 1_000_000}
    latency = {}
    for line in output.splitlines():
        found = re.match(r"\s+(50|99)%\s+([\d.]+)(us|ms|s)", line)
        if found:
            latency[found[1]] = float(found[2]) * units[found[3]]
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]), latency["50"], latency["99"]


def download(port):
    request = b"GET /100m HTTP/1.1\r\nHost: x\r\nX-Whim-Token: bench\r\nConnection: close\r\n\r\n"
    buffer = bytearray(1 << 18)
    with socket.create_connection(("127.0.0.1", port)) as stream:
        begun = time.perf_counter()
        stream.sendall(request)
        total = 0
        while size := stream.recv_into(buffer):
            total += size
        spent = time.perf_counter() - begun
    if total < 100 * 1024 * 1024:
        sys.exit(f"only {total} bytes from {port}")
    return total / spent / 1e6


def echo_server():
    def answer(stream):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            part = stream.recv(4096)
            if not part:
                return
            head += part
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        while data := stream.recv(4096):
            stream.sendall(data)

    with socket.create_server(("127.0.0.1", ECHO)) as listener:
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=answer, args=(stream,), daemon=True).start()


def echo(port):
    """Median round trip of a small message through an upgraded connection, in microseconds."""
    message = b"\x81\x88\0\0\0\0keypress"
    times = []
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sendall(
            b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Whim-Token: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += stream.recv(4096)
        for _ in range(3000):
            begun = time.perf_counter()
            stream.sendall(message)
            got = 0
            while got < len(message):
                got += len(stream.recv(4096))
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def cpu(pid):
    """Microseconds of CPU of a process and its children (workers)."""
    total = 0
    for task in [pid, *map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        fields = pathlib.Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * 1_000_000 / os.sysconf("SC_CLK_TCK")


def resident(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    peers = Peers(os.path.abspath(options.binary))
    figures = {}

    def note(what, name, value):
        figures.setdefault(what, {}).setdefault(name, []).append(value)

    try:
        targets = {"direct": SERVER, **peers.names}
        for _ in range(options.rounds):
            for connections in (1, 32, 64):
                for name, port in targets.items():
                    before = cpu(peers.pids[port])
                    rate, half, most = load(port, connections, options.seconds)
                    spent = cpu(peers.pids[port]) - before
                    # Of all figures the one that other work on the machine disturbs least.
                    note(f"c={connections} CPU us/req", name, spent / (rate * options.seconds))
                    note(f"c={connections} req/s", name, rate)
                    note(f"c={connections} p50 us", name, half)
                    note(f"c={connections} p99 us", name, most)
            for name, port in targets.items():
                before = cpu(peers.pids[port])
                note("100 MB, MB/s", name, download(port))
                note("100 MB CPU ms", name, (cpu(peers.pids[port]) - before) / 1000)
        for _ in range(options.rounds):
            for name, port in {"direct": ECHO, "whim": WHIM_ECHO, "nginx": NGINX}.items():
                note("tunnel p50 us", name, echo(port))
        note("RSS kB", "whim", resident(peers.pids[WHIM]))
    finally:
        peers.stop()
    for what, values in figures.items():
        base = statistics.median(values.get("nginx", [0])) or None
        row = []
        for name, list_ in values.items():
            middle = statistics.median(list_)
            row.append(f"{name} {middle:,.1f}" + (f" ({middle / base:.2f}x)" if base else ""))
        print(f"{what:16}", "  ".join(row))


if __name__ == "__main__":
    main()
