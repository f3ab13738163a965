//! A client of a socket.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::admin;
use crate::admin::tests::{Fixed, provider};
use crate::flows::tests::{event, record};
use crate::hubble::proto::flow::{FlowFilter, LostEventSource};
use crate::hubble::proto::observer::get_flows_response::ResponseTypes;
use crate::hubble::proto::observer::observer_client::ObserverClient;
use crate::hubble::proto::observer::{
    GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest, GetFlowsResponse,
    GetNamespacesRequest, GetNodesRequest, ServerStatusRequest,
};
use crate::hubble::serve;

/// An agent that is asked.
struct Asked {
    directory: TempDir,
    provider: Arc<Fixed>,
    end: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
    channel: Channel,
}

impl Asked {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("hubble.sock");
        let listener = admin::bind(&socket).unwrap();
        let (provider, end) = (provider(), CancellationToken::new());
        let server = tokio::spawn({
            let (provider, end, socket) = (Arc::clone(&provider), end.clone(), socket.clone());
            async move { serve(listener, &socket, provider, end).await }
        });
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()));
        let channel = channel.unwrap().connect().await.unwrap();
        Self {
            directory,
            provider,
            end,
            server,
            channel,
        }
    }

    fn client(&self) -> ObserverClient<Channel> {
        ObserverClient::new(self.channel.clone())
    }

    /// Records that differ by their time alone: `second` seconds after the first one.
    fn push(&self, second: i64) {
        let mut record = record(&event());
        record.time += jiff::SignedDuration::from_secs(second);
        self.provider.recent.lock().unwrap().push(record);
    }

    async fn flows(&self, request: GetFlowsRequest) -> Streaming<GetFlowsResponse> {
        self.client().get_flows(request).await.unwrap().into_inner()
    }

    /// All that a request is answered, by the seconds of [`Asked::push`].
    async fn seconds(&self, request: GetFlowsRequest) -> Vec<i64> {
        let mut flows = self.flows(request).await;
        let mut seconds = Vec::new();
        while let Some(next) = next(&mut flows).await {
            seconds.push(next.expect("a flow"));
        }
        seconds
    }

    async fn end(self) {
        self.end.cancel();
        let ended = timeout(Duration::from_secs(5), self.server).await;
        ended.expect("ends in time").unwrap().unwrap();
        assert!(!self.directory.path().join("hubble.sock").exists());
    }
}

/// The next flow by its second, or how many were lost; `None` at the end.
async fn next(flows: &mut Streaming<GetFlowsResponse>) -> Option<Result<i64, u64>> {
    let next = timeout(Duration::from_secs(5), flows.message()).await;
    let next = next.expect("comes in time").expect("no error")?;
    assert_eq!(next.node_name, "n1");
    let began = record(&event()).time.as_second();
    Some(match next.response_types.unwrap() {
        ResponseTypes::Flow(flow) => {
            assert_eq!(flow.time, next.time);
            Ok(flow.time.unwrap().seconds - began)
        }
        ResponseTypes::LostEvents(lost) => {
            assert_eq!(lost.source(), LostEventSource::HubbleRingBuffer);
            Err(lost.num_events_lost)
        }
        other => panic!("{other:?}"),
    })
}

fn time(second: i64) -> Option<prost_types::Timestamp> {
    let seconds = record(&event()).time.as_second() + second;
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

#[tokio::test]
async fn what_is_kept_is_told_in_the_order_of_its_time() {
    let asked = Asked::new().await;
    *asked.provider.recent.lock().unwrap() = crate::flows::Recent::new(10);
    (0..6).for_each(|second| asked.push(second));
    let request = GetFlowsRequest::default;
    for (request, expected) in [
        (request(), vec![0, 1, 2, 3, 4, 5]),
        (
            GetFlowsRequest {
                number: 2,
                ..request()
            },
            vec![4, 5],
        ),
        (
            GetFlowsRequest {
                number: 2,
                first: true,
                ..request()
            },
            vec![0, 1],
        ),
        (
            GetFlowsRequest {
                since: time(3),
                ..request()
            },
            vec![3, 4, 5],
        ),
        (
            GetFlowsRequest {
                since: time(1),
                until: time(3),
                number: 2,
                ..request()
            },
            vec![2, 3],
        ),
        (
            GetFlowsRequest {
                until: time(3),
                number: 1,
                first: true,
                ..request()
            },
            vec![0],
        ),
        (
            GetFlowsRequest {
                number: u64::MAX,
                ..request()
            },
            vec![0, 1, 2, 3, 4, 5],
        ),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(asked.seconds(request).await, expected, "{shown}");
    }
    let elsewhere = FlowFilter {
        source_pod: vec!["x/".to_owned()],
        ..FlowFilter::default()
    };
    let unwanted = GetFlowsRequest {
        whitelist: vec![elsewhere],
        ..request()
    };
    assert_eq!(asked.seconds(unwanted).await, Vec::<i64>::new());
    asked.end().await;
}

#[tokio::test]
async fn what_comes_is_told_until_the_agent_ends() {
    let asked = Asked::new().await;
    asked.push(1);
    let follow = |number| GetFlowsRequest {
        number,
        follow: true,
        ..GetFlowsRequest::default()
    };
    let [mut new, mut all] = [asked.flows(follow(0)).await, asked.flows(follow(9)).await];
    assert_eq!(next(&mut all).await, Some(Ok(1)));
    asked.push(2);
    assert_eq!(
        (next(&mut new).await, next(&mut all).await),
        (Some(Ok(2)), Some(Ok(2)))
    );
    let mut until = asked
        .flows(GetFlowsRequest {
            until: time(3),
            ..follow(0)
        })
        .await;
    asked.push(3);
    asked.push(4);
    assert_eq!(
        (next(&mut until).await, next(&mut until).await),
        (Some(Ok(3)), None)
    );
    asked.end().await;
    assert_eq!(
        (next(&mut new).await, next(&mut new).await),
        (Some(Ok(3)), Some(Ok(4)))
    );
    assert_eq!(next(&mut new).await, None);
}

#[tokio::test]
async fn a_slow_client_is_told_at_once_what_it_has_missed() {
    let asked = Asked::new().await;
    let request = GetFlowsRequest {
        follow: true,
        ..GetFlowsRequest::default()
    };
    let mut flows = asked.flows(request).await;
    // No await in between: nobody takes them meanwhile.
    (0..5_000).for_each(|second| asked.push(second));
    let lost = next(&mut flows)
        .await
        .unwrap()
        .expect_err("more than may wait");
    assert!(lost >= 900, "{lost}");
    assert_eq!(
        next(&mut flows).await,
        Some(Ok(i64::try_from(lost).unwrap()))
    );
    asked.end().await;
}

#[tokio::test]
async fn a_request_too_many_is_refused_until_another_one_ends() {
    let asked = Asked::new().await;
    let request = || GetFlowsRequest {
        follow: true,
        ..GetFlowsRequest::default()
    };
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(asked.flows(request()).await);
    }
    let refused = asked.client().get_flows(request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    streams.pop();
    let freed = async {
        while asked.client().get_flows(request()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), freed)
        .await
        .expect("in time");
    asked.end().await;
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_in_words() {
    let asked = Asked::new().await;
    let filter = FlowFilter {
        dns_query: vec!["x".to_owned()],
        ..FlowFilter::default()
    };
    let both = GetFlowsRequest {
        first: true,
        follow: true,
        ..GetFlowsRequest::default()
    };
    for (request, words) in [
        (
            GetFlowsRequest {
                blacklist: vec![filter],
                ..GetFlowsRequest::default()
            },
            "dns_query",
        ),
        (both, "first and follow"),
        (
            GetFlowsRequest {
                since: Some(prost_types::Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                }),
                ..GetFlowsRequest::default()
            },
            "since is no time",
        ),
    ] {
        let refused = asked.client().get_flows(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(words), "{}", refused.message());
    }
    let mut client = asked.client();
    let agent = client
        .get_agent_events(GetAgentEventsRequest::default())
        .await;
    let debug = client
        .get_debug_events(GetDebugEventsRequest::default())
        .await;
    for refused in [agent.map(drop), debug.map(drop)] {
        assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    }
    asked.end().await;
}

#[tokio::test]
async fn the_node_tells_of_itself() {
    let asked = Asked::new().await;
    for second in 0..5 {
        asked.push(second);
    }
    let mut client = asked.client();
    let status = client
        .server_status(ServerStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.num_flows, status.max_flows, status.seen_flows),
        (2, 4, 5)
    );
    assert!(status.version.starts_with("weir "), "{}", status.version);
    let nodes = client
        .get_nodes(GetNodesRequest {})
        .await
        .unwrap()
        .into_inner()
        .nodes;
    assert_eq!(
        (nodes.len(), &*nodes[0].name, nodes[0].seen_flows),
        (1, "n1", 5)
    );
    let namespaces = client
        .get_namespaces(GetNamespacesRequest {})
        .await
        .unwrap();
    assert_eq!(namespaces.into_inner().namespaces[0].namespace, "shop");
    let service = "hubble.server.Observer".to_owned();
    let health = HealthClient::new(asked.channel.clone())
        .check(HealthCheckRequest { service })
        .await;
    assert_eq!(
        health.unwrap().into_inner().status(),
        ServingStatus::Serving
    );
    asked.end().await;
}
