//! Requests to the API server, as they are counted.

/// Kind of request, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// HTTP method.
    pub method: String,
    /// Host and port of the server.
    pub host: String,
    /// Status code, or `<error>` without an answer (as client-go counts).
    pub code: String,
}
