//! The answers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::flow::timestamp;
use super::proto::flow::{Flow, LostEvent, LostEventSource};
use super::proto::observer::get_flows_response::ResponseTypes;
use super::proto::observer::observer_server::Observer;
use super::proto::observer::{self as api, GetFlowsResponse};
use super::proto::relay::NodeState;
use super::request::Asked;
use crate::admin::{Provider, RecordCounts};
use crate::flows::Record;

/// Most requests for flows at once: each holds some megabytes until it has told what there was.
const STREAMS: usize = 16;

/// This node, as Hubble's clients see it.
pub(super) struct Node {
    provider: Arc<dyn Provider>,
    streams: Arc<Semaphore>,
    end: CancellationToken,
}

type Flows = Pin<Box<dyn Stream<Item = Result<GetFlowsResponse, Status>> + Send>>;

impl Node {
    /// The node that a provider tells of, until `end`.
    pub(super) fn new(provider: Arc<dyn Provider>, end: CancellationToken) -> Self {
        Self {
            provider,
            streams: Arc::new(Semaphore::new(STREAMS)),
            end,
        }
    }

    /// Does what may take a while where it holds up nobody.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Provider) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let provider = Arc::clone(&self.provider);
        let answer = tokio::task::spawn_blocking(move || question(&*provider));
        answer
            .await
            .map_err(|error| Status::internal(error.to_string()))
    }

    async fn state(&self) -> Result<State, Status> {
        self.ask(|provider| {
            let status = provider.status();
            State {
                node: status.node,
                uptime: Duration::from_secs(status.uptime_seconds),
                records: provider.record_counts(),
            }
        })
        .await
    }
}

/// What is told of the node itself.
struct State {
    node: String,
    uptime: Duration,
    records: RecordCounts,
}

impl State {
    fn uptime_ns(&self) -> u64 {
        u64::try_from(self.uptime.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// How clients are told the version.
fn version() -> String {
    format!("weir {}", env!("CARGO_PKG_VERSION"))
}

#[tonic::async_trait]
impl Observer for Node {
    type GetFlowsStream = Flows;
    type GetAgentEventsStream = stream::Empty<Result<api::GetAgentEventsResponse, Status>>;
    type GetDebugEventsStream = stream::Empty<Result<api::GetDebugEventsResponse, Status>>;

    async fn get_flows(
        &self,
        request: Request<api::GetFlowsRequest>,
    ) -> Result<Response<Flows>, Status> {
        let asked = Asked::new(request.into_inner());
        let asked = Arc::new(asked.map_err(|error| Status::invalid_argument(error.to_string()))?);
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let why = format!("{STREAMS} requests for flows are being answered: end one of them");
            Status::resource_exhausted(why)
        })?;
        let question = Arc::clone(&asked);
        let (node, kept, coming) = self
            .ask(move |provider| {
                let snapshot = provider.snapshot();
                let (records, coming) = provider.follow();
                let kept = question.of_kept(&records, &snapshot);
                (snapshot.node_name.clone(), kept, coming)
            })
            .await?;
        let named = move |kind| Ok(response(kind, &node));
        let kept = stream::iter(kept).map(ResponseTypes::Flow);
        let answer: Flows = if asked.follow {
            let coming = followed(asked, coming, Arc::clone(&self.provider));
            Box::pin(kept.chain(coming).map(named))
        } else {
            Box::pin(kept.map(named))
        };
        let end = self.end.clone().cancelled_owned();
        Ok(Response::new(Box::pin(held(
            answer.take_until(end),
            permit,
        ))))
    }

    async fn get_agent_events(
        &self,
        _: Request<api::GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Err(Status::unimplemented(
            "Weir has no agent events: `weir history` tells what the agent did",
        ))
    }

    async fn get_debug_events(
        &self,
        _: Request<api::GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented(
            "Weir has no debug events: `weir explain` tries packets on the loaded programs",
        ))
    }

    async fn get_nodes(
        &self,
        _: Request<api::GetNodesRequest>,
    ) -> Result<Response<api::GetNodesResponse>, Status> {
        let state = self.state().await?;
        let mut node = api::Node {
            uptime_ns: state.uptime_ns(),
            name: state.node,
            version: version(),
            num_flows: state.records.kept,
            max_flows: state.records.room,
            seen_flows: state.records.ever,
            ..api::Node::default()
        };
        node.set_state(NodeState::NodeConnected);
        Ok(Response::new(api::GetNodesResponse { nodes: vec![node] }))
    }

    async fn get_namespaces(
        &self,
        _: Request<api::GetNamespacesRequest>,
    ) -> Result<Response<api::GetNamespacesResponse>, Status> {
        let namespaces = self.provider.snapshot();
        let namespaces = namespaces.namespaces.values();
        let namespaces = namespaces.map(|namespace| api::Namespace {
            namespace: namespace.name.clone(),
            ..api::Namespace::default()
        });
        Ok(Response::new(api::GetNamespacesResponse {
            namespaces: namespaces.collect(),
        }))
    }

    async fn server_status(
        &self,
        _: Request<api::ServerStatusRequest>,
    ) -> Result<Response<api::ServerStatusResponse>, Status> {
        let state = self.state().await?;
        Ok(Response::new(api::ServerStatusResponse {
            num_flows: state.records.kept,
            max_flows: state.records.room,
            seen_flows: state.records.ever,
            uptime_ns: state.uptime_ns(),
            version: version(),
            flows_rate: state.records.ever as f64 / state.uptime.as_secs_f64().max(1.0),
            ..api::ServerStatusResponse::default()
        }))
    }
}

/// A stream that counts as long as somebody has it.
fn held<T>(
    stream: impl Stream<Item = T> + Send + 'static,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = T> + Send + 'static {
    stream.map(move |item| {
        let _ = &permit;
        item
    })
}

/// What comes and is wanted, and what was lost in between. It is asked for as fast as the client takes it, and no faster.
fn followed(
    asked: Arc<Asked>,
    coming: broadcast::Receiver<Record>,
    provider: Arc<dyn Provider>,
) -> impl Stream<Item = ResponseTypes> + Send {
    stream::unfold(coming, move |mut coming| {
        let (asked, provider) = (Arc::clone(&asked), Arc::clone(&provider));
        async move {
            loop {
                match coming.recv().await {
                    Ok(record) if asked.is_over(&record) => return None,
                    Ok(record) => {
                        if let Some(flow) = asked.wanted(&record, &provider.snapshot()) {
                            return Some((ResponseTypes::Flow(flow), coming));
                        }
                    }
                    Err(RecvError::Lagged(lost)) => {
                        return Some((ResponseTypes::LostEvents(missed(lost)), coming));
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        }
    })
}

/// Records that a slow client has missed.
fn missed(lost: u64) -> LostEvent {
    let mut event = LostEvent {
        num_events_lost: lost,
        ..LostEvent::default()
    };
    event.set_source(LostEventSource::HubbleRingBuffer);
    event
}

fn response(kind: ResponseTypes, node: &str) -> GetFlowsResponse {
    let time = match &kind {
        ResponseTypes::Flow(Flow { time, .. }) => *time,
        _ => Some(timestamp(Timestamp::now())),
    };
    GetFlowsResponse {
        node_name: node.to_owned(),
        time,
        response_types: Some(kind),
    }
}
