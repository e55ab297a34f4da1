//! Does a server speak HTTP? What can be said without sending it a byte: by the program's name, its arguments, and, for
//! a program that says nothing, by the number of the port.
//!
//! A guess of "no" keeps the local proxy from ever writing to the server (Redis executes what it is sent), so it is
//! made generously. A guess of "yes" is for display alone. What a visitor's own request showed outranks both.

use whim_wire::port::PortProcess;

/// Servers that speak something else, by the kernel's name for the process.
const OTHER_PROGRAMS: [&str; 24] = [
    "redis-server",
    "redis-sentinel",
    "valkey-server",
    "keydb-server",
    "dragonfly",
    "postgres",
    "postmaster",
    "pgbouncer",
    "mysqld",
    "mariadbd",
    "mongod",
    "mongos",
    "memcached",
    "sshd",
    "dropbear",
    "epmd",
    "beanstalkd",
    "mosquitto",
    "slapd",
    "vsftpd",
    "smbd",
    "exim4",
    "dnsmasq",
    "Xvnc",
];

/// Ports that belong to such servers (IANA, and Node's inspector at 9229) when the process says nothing else.
const OTHER_PORTS: [u16; 20] = [
    21, 22, 23, 25, 53, 110, 143, 389, 1433, 1521, 3306, 5432, 5672, 5900, 6379, 9042, 9229, 11211,
    26379, 27017,
];

/// Programs that speak HTTP whatever their arguments.
const HTTP_PROGRAMS: [&str; 10] = [
    "nginx",
    "caddy",
    "httpd",
    "apache2",
    "haproxy",
    "gunicorn",
    "uvicorn",
    "puma",
    "next-server",
    "traefik",
];

/// Words of a command that name an HTTP server: the last part of a path, or the argument itself.
const HTTP_WORDS: [&str; 27] = [
    "http.server",
    "SimpleHTTPServer",
    "vite",
    "vite.js",
    "next",
    "next-server",
    "webpack",
    "webpack-dev-server",
    "react-scripts",
    "astro",
    "astro.js",
    "ng",
    "nuxt",
    "nuxi",
    "storybook",
    "parcel",
    "http-server",
    "serve",
    "live-server",
    "gunicorn",
    "uvicorn",
    "hypercorn",
    "flask",
    "runserver",
    "puma",
    "rails",
    "streamlit",
];

/// What the process and the port suggest; none: nothing.
pub(crate) fn http(port: u16, process: Option<&PortProcess>) -> Option<bool> {
    if let Some(process) = process {
        // PostgreSQL and others append to their name: "postgres: writer".
        let name = process.name.split([':', ' ']).next().unwrap_or_default();
        if OTHER_PROGRAMS.contains(&name) {
            return Some(false);
        }
        let words = || process.command.split(' ').take(6);
        if words().any(|word| word.starts_with("--inspect")) && port == 9229 {
            return Some(false);
        }
        if HTTP_PROGRAMS.contains(&name)
            || words().any(|word| {
                let last = word.rsplit('/').next().unwrap_or(word);
                HTTP_WORDS.contains(&last)
            })
        {
            return Some(true);
        }
    }
    OTHER_PORTS.contains(&port).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_before_numbers() {
        for (port, name, command, expected) in [
            (6400, "redis-server", "redis-server *:6400", Some(false)),
            (
                3000,
                "postgres",
                "/usr/lib/postgresql/15/bin/postgres",
                Some(false),
            ),
            (6379, "mystery", "./mystery", Some(false)),
            (8000, "python3", "python3 -m http.server 8000", Some(true)),
            (5173, "node", "node /app/node_modules/.bin/vite", Some(true)),
            (5432, "nginx", "nginx: master process", Some(true)),
            (3000, "next-server", "next-server (v16.0.0)", Some(true)),
            (9229, "node", "node --inspect app.js", Some(false)),
            (3000, "node", "node app.js", None),
            (4000, "bash", "bash -c invite", None),
        ] {
            let process = PortProcess {
                pid: 2,
                name: name.into(),
                command: command.into(),
            };
            assert_eq!(http(port, Some(&process)), expected, "{port} {command}");
        }
        assert_eq!(http(22, None), Some(false));
        assert_eq!(http(3000, None), None);
    }
}
