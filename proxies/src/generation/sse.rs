//! Incremental parser of server-sent events: bytes in, event boundaries and data bytes out.
//!
//! Owns nothing but its place in the stream: data is handed on as it comes, in pieces, so memory is flat however long
//! an event is. The result does not depend on where the input is split. Follows the WHATWG event stream format
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>): lines end in LF, CR or
//! CRLF, one leading byte order mark is dropped, several `data:` lines are joined by LF, a blank line ends the event.
//! Fields other than `data` carry nothing that the proxy needs: every provider repeats the event's name in its data.
//! An event that the end of the input cuts off is never ended; the caller can ask [`Parser::in_event`].

/// What the parser tells, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Part of the event's data.
    Data(&'a [u8]),
    /// A blank line ended an event that had data.
    End,
    /// A comment line began: bytes, but no progress of the model.
    Comment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a field's name, of which `field_len` bytes were read.
    Field,
    /// Right after `data:`; a single space may follow.
    Colon,
    Data,
    /// The rest of this line says nothing.
    Ignore,
}

const BOM: &[u8] = "\u{feff}".as_bytes();
/// The length of `data`, the longest field name that is told apart.
const LONGEST: usize = 4;

/// The parser's place in a stream.
#[derive(Clone, Debug)]
pub struct Parser {
    place: Place,
    field: [u8; LONGEST],
    field_len: usize,
    after_cr: bool,
    bom: usize,
    has_data: bool,
    /// Nothing but comments since the last blank line.
    clean: bool,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            place: Place::Field,
            field: [0; LONGEST],
            field_len: 0,
            after_cr: false,
            bom: 0,
            has_data: false,
            clean: true,
        }
    }
}

impl Parser {
    /// Whether data of an unfinished event was seen.
    #[must_use]
    pub const fn in_event(&self) -> bool {
        self.has_data
    }

    /// Whether another event may be put in here without touching a neighbour.
    #[must_use]
    pub fn between_events(&self) -> bool {
        self.clean && self.place == Place::Field && self.field_len == 0
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, mut input: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        while self.bom < BOM.len() {
            match (input.split_first(), BOM.get(self.bom)) {
                (None, _) => return,
                (Some((byte, rest)), Some(expected)) if byte == expected => {
                    self.bom += 1;
                    input = rest;
                }
                _ => {
                    // Not a mark: what looked like its beginning belongs to a field name that is none of ours.
                    if self.bom > 0 {
                        self.place = Place::Ignore;
                    }
                    self.bom = BOM.len();
                }
            }
        }
        while let Some((&byte, rest)) = input.split_first() {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                input = rest;
                continue;
            }
            if byte == b'\n' || byte == b'\r' {
                self.after_cr = byte == b'\r';
                self.end_line(sink);
                input = rest;
                continue;
            }
            input = match self.place {
                Place::Field => {
                    self.field_byte(byte, sink);
                    rest
                }
                Place::Colon => {
                    self.place = Place::Data;
                    if byte == b' ' { rest } else { input }
                }
                Place::Data => {
                    let end = memchr::memchr2(b'\n', b'\r', input).unwrap_or(input.len());
                    let (text, rest) = input.split_at_checked(end).unwrap_or((input, &[]));
                    sink(Piece::Data(text));
                    rest
                }
                Place::Ignore => {
                    let end = memchr::memchr2(b'\n', b'\r', input).unwrap_or(input.len());
                    input.get(end..).unwrap_or(&[])
                }
            };
        }
    }

    fn field_byte(&mut self, byte: u8, sink: &mut impl FnMut(Piece<'_>)) {
        self.clean &= byte == b':' && self.field_len == 0;
        if byte != b':' {
            match self.field.get_mut(self.field_len) {
                Some(slot) => {
                    *slot = byte;
                    self.field_len += 1;
                }
                None => self.place = Place::Ignore,
            }
            return;
        }
        self.place = match self.field.get(..self.field_len) {
            Some(b"data") => {
                self.begin_data(sink);
                Place::Colon
            }
            Some(b"") => {
                sink(Piece::Comment);
                Place::Ignore
            }
            _ => Place::Ignore,
        };
    }

    fn begin_data(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        if self.has_data {
            sink(Piece::Data(b"\n"));
        }
        self.has_data = true;
    }

    fn end_line(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        let field = self.field.get(..self.field_len).unwrap_or_default();
        if self.place == Place::Field {
            if field.is_empty() {
                self.clean = true;
                if std::mem::take(&mut self.has_data) {
                    sink(Piece::End);
                }
            } else if field == b"data" {
                // A line without a colon is a field with an empty value.
                self.begin_data(sink);
            }
        }
        self.place = Place::Field;
        self.field_len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut parser = Parser::default();
        let (mut done, mut data) = (Vec::new(), Vec::new());
        for chunk in chunks {
            parser.feed(chunk, &mut |piece| match piece {
                Piece::Data(bytes) => data.extend_from_slice(bytes),
                Piece::End => done.push(std::mem::take(&mut data)),
                Piece::Comment => {}
            });
        }
        done
    }

    const STREAM: &[u8] =
        "\u{feff}: hello\r\nevent: a\r\ndata: {\"x\":\r\ndata: \"é\"}\r\n\r\nid: 7\ndata:1\n\n\
        data\n\nevent: only\n\nretry: 5\rdata:  two\r\rdataset: no\ndata : no\n\ndata: cut"
            .as_bytes();

    #[test]
    fn the_format() {
        let expected = ["{\"x\":\n\"é\"}", "1", "", " two"].map(|d| d.as_bytes().to_vec());
        assert_eq!(events(&[STREAM]), expected);
    }

    #[test]
    fn every_split_gives_the_same() {
        let whole = events(&[STREAM]);
        for at in 0..=STREAM.len() {
            let (a, b) = STREAM.split_at(at);
            assert_eq!(events(&[a, b]), whole, "split at {at}");
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(events(&bytes), whole, "byte by byte");
    }

    #[test]
    fn a_comment_is_told_and_is_no_event() {
        let mut parser = Parser::default();
        let mut pieces = Vec::new();
        parser.feed(b": OPENROUTER PROCESSING\n\n", &mut |p| {
            pieces.push(format!("{p:?}"))
        });
        assert_eq!(pieces, ["Comment"]);
        assert!(!parser.in_event());
        parser.feed(b"data: x", &mut |_| {});
        assert!(parser.in_event());
    }
}
