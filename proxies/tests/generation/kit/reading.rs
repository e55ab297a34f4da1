//! Reading up to a mark.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

pub(super) async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}

pub(super) async fn fill_until(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    mark: &[u8],
) -> Option<usize> {
    loop {
        if let Some(at) = buffer.windows(mark.len()).position(|w| w == mark) {
            return Some(at + mark.len());
        }
        fill(stream, buffer).await?;
    }
}
