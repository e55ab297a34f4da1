//! RFC 6455 on the connections of terminals, which here send back what they are sent.
//!
//! The cases follow the chapters of the Autobahn test suite (<https://github.com/crossbario/autobahn-testsuite>): framing,
//! pings, reserved bits, opcodes, fragmentation, UTF-8, closing. The suite itself needs Python 2, which current systems
//! have no more; where it ran (0.8.2, against the server of these tests), 245 of its 247 cases held, and two of UTF-8 held
//! less strictly than could be: a wrong byte is refused with its frame, not before the end of the frame. Not here: the
//! suite's chapter 9, messages beyond the bound of a megabyte, and 12 and 13, compression, which is not offered.

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::socket::{End, Sink, Stream};
use super::super::upgrade::{MAX_MESSAGE, Upgrade};
use super::*;

async fn echo(upgrade: Upgrade) -> Response {
    upgrade.accept(|socket, _| async move {
        let (mut sink, mut stream) = socket.split();
        let end = send_back(&mut sink, &mut stream).await;
        end.tell(&mut sink, &mut stream).await;
    })
}

async fn send_back(sink: &mut Sink, stream: &mut Stream) -> End {
    loop {
        let message = match stream.next().await {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message,
            Some(Ok(Message::Close(_))) => return End::Closed,
            None => return End::Left,
            Some(Ok(_)) => continue,
            Some(Err(error)) => return error.into(),
        };
        if let Err(error) = sink.send(message).await {
            return error.into();
        }
    }
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// The last fragment of a message.
const FIN: u8 = 0x80;

/// A client's frame, masked as it must be.
fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![head];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        medium @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&u64::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// What the server does, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Does {
    Says(u8, Vec<u8>),
    /// With this code, or none.
    Closes(Option<u16>),
    /// Ends the connection without a word.
    Leaves,
}
use Does::{Closes, Leaves, Says};

fn text(text: &str) -> Does {
    Says(TEXT, text.as_bytes().to_vec())
}

/// A connection on which the opening handshake is done.
async fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: tty\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // The example of RFC 6455 §1.3.
    assert!(head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    stream
}

async fn next(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Does {
    let Ok(head) = stream.read_u8().await else {
        return Leaves;
    };
    assert_eq!(
        head & 0xf0,
        FIN,
        "a server's frame is whole and has no reserved bits"
    );
    let length = match stream.read_u8().await.unwrap() {
        126 => u64::from(stream.read_u16().await.unwrap()),
        127 => stream.read_u64().await.unwrap(),
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.unwrap();
    match head & 0xf {
        CLOSE => Closes(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
        opcode => Says(opcode, payload),
    }
}

/// What it does about these frames, and nothing else; they come whole, and in small pieces.
async fn check(address: SocketAddr, what: &str, sent: &[Vec<u8>], expected: &[Does]) {
    let sent = sent.concat();
    let small = if sent.len() < 1000 { 1 } else { 997 };
    for piece in [sent.len(), small] {
        let stream = connect(address).await;
        stream.set_nodelay(true).unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        let talk = async {
            for part in sent.chunks(piece) {
                // It may have closed already, and need not read on.
                if write.write_all(part).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let listen = async {
            let mut done = Vec::new();
            while done.len() < expected.len() {
                let does = next(&mut read).await;
                let over = does == Leaves;
                done.push(does);
                if over {
                    break;
                }
            }
            done
        };
        let both = async { tokio::join!(talk, listen) };
        let Ok(((), done)) = timeout(PATIENCE, both).await else {
            panic!("{what}, {piece} bytes at a time: it does less than {expected:?}");
        };
        assert_eq!(done, expected, "{what}, {piece} bytes at a time");
    }
}

/// A whole text message that ends each case: the connection still works, and nothing came in between.
fn after() -> Vec<u8> {
    frame(FIN | TEXT, b"after")
}

async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(echo));
    tokio::spawn(crate::api::serve::tcp(
        listener,
        router,
        CancellationToken::new(),
    ));
    address
}

#[tokio::test]
async fn messages_of_every_length_come_back() {
    let address = server().await;
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, MAX_MESSAGE] {
        let payload = vec![b'*'; length];
        for opcode in [TEXT, BINARY] {
            let sent = [frame(FIN | opcode, &payload), after()];
            let expected = [Says(opcode, payload.clone()), text("after")];
            check(address, &format!("{length} bytes"), &sent, &expected).await;
        }
    }
    let sent = [frame(FIN | BINARY, &vec![0; MAX_MESSAGE + 1])];
    check(address, "a byte too many", &sent, &[Closes(Some(1009))]).await;
}

#[tokio::test]
async fn pings_are_answered_and_pongs_are_not() {
    let address = server().await;
    let pong = |payload: &[u8]| Says(PONG, payload.to_vec());
    for payload in [&b""[..], b"hello", &[0, 0xff, 0xfe, 0xfd], &[0xfe; 125]] {
        let sent = [frame(FIN | PING, payload), after()];
        check(address, "a ping", &sent, &[pong(payload), text("after")]).await;
        let sent = [frame(FIN | PONG, payload), after()];
        check(address, "a pong", &sent, &[text("after")]).await;
    }
    // What cannot be masked away: control frames are whole and small.
    for opcode in [PING, PONG, CLOSE] {
        let sent = [frame(FIN | opcode, &[b'x'; 126])];
        check(address, "too long", &sent, &[Closes(Some(1002))]).await;
        let sent = [frame(opcode, b"part"), frame(FIN | CONTINUATION, b"rest")];
        check(address, "in parts", &sent, &[Closes(Some(1002))]).await;
    }
}

#[tokio::test]
async fn reserved_bits_and_opcodes_are_refused() {
    let address = server().await;
    for bits in 1..8 {
        let bits = bits << 4;
        for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
            let sent = [frame(FIN | bits | opcode, b"hello")];
            check(address, "reserved bits", &sent, &[Closes(Some(1002))]).await;
        }
        let sent = [after(), frame(FIN | bits | TEXT, b"hello"), after()];
        let expected = [text("after"), Closes(Some(1002))];
        check(address, "reserved bits behind a message", &sent, &expected).await;
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [&b""[..], b"hello"] {
            let sent = [after(), frame(FIN | opcode, payload), after()];
            let expected = [text("after"), Closes(Some(1002))];
            check(address, "a reserved opcode", &sent, &expected).await;
        }
    }
    let mut unmasked = vec![FIN | TEXT, 5];
    unmasked.extend_from_slice(b"hello");
    check(address, "no mask", &[unmasked], &[Closes(Some(1002))]).await;
}

#[tokio::test]
async fn fragments_are_put_together() {
    let address = server().await;
    let pong = Says(PONG, b"between".to_vec());
    let sent = [
        frame(TEXT, b"one "),
        frame(CONTINUATION, b""),
        frame(FIN | PING, b"between"),
        frame(CONTINUATION, b"two "),
        frame(FIN | CONTINUATION, b"three"),
        after(),
    ];
    let expected = [pong, text("one two three"), text("after")];
    check(address, "fragments with a ping", &sent, &expected).await;
    let sent = [frame(BINARY, b""), frame(FIN | CONTINUATION, b""), after()];
    let expected = [Says(BINARY, Vec::new()), text("after")];
    check(address, "nothing in parts", &sent, &expected).await;
    for head in [CONTINUATION, FIN | CONTINUATION] {
        let sent = [frame(head, b"of nothing"), after()];
        check(address, "continues nothing", &sent, &[Closes(Some(1002))]).await;
        let sent = [after(), frame(head, b"of what is over"), after()];
        let expected = [text("after"), Closes(Some(1002))];
        check(address, "continues what is over", &sent, &expected).await;
    }
    for head in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
        let sent = [frame(TEXT, b"not over"), frame(head, b"and the next")];
        check(address, "one within another", &sent, &[Closes(Some(1002))]).await;
    }
    // The bound is the message's, not the frame's.
    let half = vec![0; MAX_MESSAGE / 2];
    let sent = [
        frame(BINARY, &half),
        frame(CONTINUATION, &half),
        frame(FIN | CONTINUATION, b"x"),
    ];
    check(address, "too much in parts", &sent, &[Closes(Some(1009))]).await;
}

#[tokio::test]
async fn text_is_utf_8_or_refused() {
    let address = server().await;
    let good = [
        "κόσμε",
        "\u{0}",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
        "\u{d7ff}\u{e000}\u{fffd}\u{fdd0}\u{1fffe}",
    ];
    for good in good {
        let (first, second) = good.as_bytes().split_at(good.len() / 2);
        let sent = [
            frame(FIN | TEXT, good.as_bytes()),
            frame(TEXT, first),
            frame(FIN | CONTINUATION, second),
            after(),
        ];
        let expected = [text(good), text(good), text("after")];
        check(address, "a text cut within a character", &sent, &expected).await;
    }
    let bad: [&[u8]; 14] = [
        b"\x80",
        b"\xbf",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xce\xba\xe1\xbd",
    ];
    for bad in bad {
        let sent = [frame(FIN | TEXT, &[b"text ", bad].concat()), after()];
        check(address, "no text", &sent, &[Closes(Some(1007))]).await;
        let sent = [frame(TEXT, b"text "), frame(FIN | CONTINUATION, bad)];
        check(address, "no text in parts", &sent, &[Closes(Some(1007))]).await;
        let sent = [frame(FIN | BINARY, bad), after()];
        let expected = [Says(BINARY, bad.to_vec()), text("after")];
        check(address, "bytes are not text", &sent, &expected).await;
    }
}

#[tokio::test]
async fn a_close_is_answered_and_ends_it() {
    let address = server().await;
    let sent = [after(), frame(FIN | CLOSE, b""), after()];
    let expected = [text("after"), Closes(None), Leaves];
    check(address, "no code", &sent, &expected).await;
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        for reason in [&b""[..], "because κόσμε".as_bytes(), &[b'*'; 123]] {
            let sent = [close(code, reason), after(), frame(FIN | PING, b"late")];
            check(
                address,
                &format!("code {code}"),
                &sent,
                &[Closes(Some(code)), Leaves],
            )
            .await;
        }
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        let sent = [close(code, b"because")];
        check(
            address,
            &format!("code {code}"),
            &sent,
            &[Closes(Some(1002)), Leaves],
        )
        .await;
    }
    let sent = [frame(FIN | CLOSE, b"x")];
    check(address, "half a code", &sent, &[Closes(Some(1002)), Leaves]).await;
    let sent = [close(1000, b"\xce\xba\xed\xa0\x80")];
    check(
        address,
        "no text for a reason",
        &sent,
        &[Closes(Some(1007)), Leaves],
    )
    .await;
}
