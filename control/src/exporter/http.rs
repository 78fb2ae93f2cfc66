//! The little of HTTP/1.1 that is spoken: one request a connection, without a body.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest request head in bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// A request's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) is_head: bool,
    pub(super) path: String,
    /// The value of `connection=` in the query, decoded.
    pub(super) connection: Option<String>,
    pub(super) accept: String,
    pub(super) authorization: String,
}

/// An answer; its body is not sent to `HEAD`.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: &'static str,
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
}

impl Response {
    pub(super) fn new(status: &'static str, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: format!("Content-Type: {content_type}\r\n"),
            body: body.into(),
        }
    }

    /// A line of text.
    pub(super) fn line(status: &'static str, line: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{line}\n"))
    }

    pub(super) fn with_header(mut self, header: &str) -> Self {
        self.headers.push_str(header);
        self.headers.push_str("\r\n");
        self
    }

    pub(super) async fn send(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        with_body: bool,
    ) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 {}\r\n{}Content-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\n",
            self.status,
            self.headers,
            self.body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        if with_body {
            stream.write_all(&self.body).await?;
        }
        stream.shutdown().await
    }
}

/// Reads a request's head. `Ok(None)`: the client left. The inner error is the answer to what is no request
/// of ours.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<Result<Request, Response>>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if head.len() > MAX_HEAD_BYTES {
            let refusal = Response::line("431 Request Header Fields Too Large", "too long a request");
            return Ok(Some(Err(refusal)));
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(parse(&String::from_utf8_lossy(&head))))
}

fn parse(head: &str) -> Result<Request, Response> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if method != "GET" && method != "HEAD" {
        return Err(
            Response::line("405 Method Not Allowed", "only GET and HEAD").with_header("Allow: GET, HEAD")
        );
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let connection = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("connection="))
        .map(percent_decode);
    let mut request = Request {
        is_head: method == "HEAD",
        path: path.to_owned(),
        connection,
        accept: String::new(),
        authorization: String::new(),
    };
    for line in lines {
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("accept") {
                value.trim().clone_into(&mut request.accept);
            } else if name.eq_ignore_ascii_case("authorization") {
                value.trim().clone_into(&mut request.authorization);
            }
        }
    }
    Ok(request)
}

/// `%41` and `+` of a query.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let value = text
                    .get(at..at + 2)
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                at += if value.is_some() { 2 } else { 0 };
                out.push(value.unwrap_or(b'%'));
            }
            other => out.push(*other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_taken_apart() {
        let head = "GET /metrics/tunnels?x=1&connection=site-%5Bab%5D.*+z%zz HTTP/1.1\r\nHost: a\r\naccept:  text/plain \r\n\r\n";
        let request = parse(head).unwrap();
        assert_eq!(request.path, "/metrics/tunnels");
        assert_eq!(request.connection.as_deref(), Some("site-[ab].* z%zz"));
        assert_eq!(request.accept, "text/plain");
        assert!(!request.is_head);
        assert_eq!(
            parse("POST / HTTP/1.1\r\n\r\n").unwrap_err().status.get(..3),
            Some("405")
        );
        assert!(parse("\r\n\r\n").is_err());
    }
}
