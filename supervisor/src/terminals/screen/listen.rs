//! Finds the addresses of local servers in printed text (`http://localhost:5173/`), also where a
//! colour change stands between host and port. A hint only: what is printed need not listen.

/// Hosts that mean this machine.
pub(super) const HOSTS: [&str; 5] = ["localhost", "127.0.0.1", "0.0.0.0", "[::1]", "[::]"];

/// Where in `host:port` the text stands.
#[derive(Debug, Default, Clone, Copy)]
enum Place {
    #[default]
    Outside,
    Host,
    Colon,
    Port(u32),
}

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Listen {
    place: Place,
}

impl Listen {
    /// Looks through one run of text. Returns how many bytes were taken (none, when the run shows only that a
    /// port of the run before has ended) and the port at their end.
    pub(super) fn scan(&mut self, text: &[u8]) -> Option<(usize, u16)> {
        let mut at = 0;
        loop {
            let rest = text.get(at..)?;
            match self.place {
                Place::Outside => {
                    at += find_host(rest)?;
                    self.place = Place::Host;
                }
                Place::Host => match rest.first()? {
                    b':' => {
                        at += 1;
                        self.place = Place::Colon;
                    }
                    _ => self.place = Place::Outside,
                },
                Place::Colon => match rest.first()? {
                    digit @ b'1'..=b'9' => {
                        at += 1;
                        self.place = Place::Port(u32::from(digit - b'0'));
                    }
                    _ => self.place = Place::Outside,
                },
                Place::Port(number) => match rest.first()? {
                    digit @ b'0'..=b'9' if number < 100_000 => {
                        at += 1;
                        self.place = Place::Port(number * 10 + u32::from(digit - b'0'));
                    }
                    _ => {
                        self.place = Place::Outside;
                        if let Ok(port) = u16::try_from(number) {
                            return Some((at, port));
                        }
                    }
                },
            }
        }
    }
}

/// Bytes up to behind the first host name.
fn find_host(text: &[u8]) -> Option<usize> {
    // 'l', '1', '0' and '[' begin the hosts; a colon must follow, and colons are rarer than all of them.
    memchr::memchr_iter(b':', text)
        .find_map(|colon| {
            let before = text.get(..colon)?;
            HOSTS
                .iter()
                .any(|host| before.ends_with(host.as_bytes()))
                .then_some(colon)
        })
        .or_else(|| {
            HOSTS
                .iter()
                .any(|host| text.ends_with(host.as_bytes()))
                .then_some(text.len())
        })
        .filter(|taken| *taken > 0)
}
