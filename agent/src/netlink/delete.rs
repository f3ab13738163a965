//! Removes a device.

use super::Error;

/// Removes the device with that index; nothing is done when it is gone. `name` is for the error.
///
/// # Errors
/// When the kernel refuses.
pub async fn delete(ifindex: u32, name: &'static str) -> Result<(), Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    let deleted = tokio::select! {
        deleted = handle.link().del(ifindex).execute() => deleted,
        () = connection => return Err(Error::Ended),
    };
    match deleted {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(()),
        deleted => deleted.map_err(|source| Error::Delete { name, source }),
    }
}
