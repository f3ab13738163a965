//! `weir admin-proxy`: joins the standard streams to the admin socket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};

use crate::config::admin_socket;

const BUFFER: usize = 64 * 1024;

/// Ends when the agent has no more to say: then whatever else is asked would not be answered.
pub(super) fn execute(run_dir: &Path) -> Result<()> {
    let path = admin_socket(run_dir);
    let connect = || format!("no agent answers on {}", path.display());
    let mut socket = UnixStream::connect(&path).with_context(connect)?;
    let mut questions = socket.try_clone().context("cannot share the socket")?;
    thread::spawn(move || {
        // A socket that takes no more ends the answers, too.
        let _ = pass(&mut io::stdin(), &mut questions);
        let _ = questions.shutdown(Shutdown::Write);
    });
    pass(&mut socket, &mut io::stdout()).context("cannot pass the agent's answer on")
}

/// Passes everything on as it comes. `io::copy` would splice from the socket, and whoever waits there for more holds the lock of the pipe behind
/// standard output: its reader gets nothing until the end.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                to.write_all(&buffer[..length])?;
                to.flush()?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
