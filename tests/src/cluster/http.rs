//! The least of HTTP that asks an agent for its health and metrics.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::netns::Place;

const LIMIT: Duration = Duration::from_secs(5);

/// Status code and body of a GET from inside `place`.
///
/// # Errors
/// Nobody listens there, or what answers is no HTTP.
pub fn get(place: &Place, to: SocketAddr, path: &str) -> Result<(u16, String)> {
    let answer = place.run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        // Version 1.0, so that the server ends the answer by closing.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    let answer = answer.with_context(|| format!("get http://{to}{path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.context("an HTTP status")?, body.to_owned()))
}
