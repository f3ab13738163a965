//! Packets at a pod under policies.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use weir::datapath::{KernelDatapath, TestRun};
use weir_common::abi::{FlowKey, Hook};
use weir_common::logic::protocol;
use weir_tests::packets::{Content, Packet, tcp};

use super::population::{PORT, address};
use crate::table::median;

const CALLS: u16 = 500;
const REPEAT: u32 = 100_000;

/// Nanoseconds of packets from the pod to the policy's block, in rounds.
#[derive(Default)]
pub(super) struct Packets {
    established: Vec<f64>,
    first: Vec<f64>,
}

impl Packets {
    /// Measures once more.
    pub(super) fn round(&mut self, datapath: &KernelDatapath, device: u32) -> Result<()> {
        let peer = IpAddr::from([172, 16, 0, 0]);
        let pod = address(0);
        let packet = |source, flags| {
            let content = Content::Tcp {
                source,
                destination: PORT,
                flags,
                payload: 64,
            };
            Packet::new(pod, peer, content).bytes()
        };
        let pass = |packet: &[u8], repeat| -> Result<f64> {
            let run = TestRun {
                repeat,
                ..TestRun::new(packet, device, device)
            };
            let output = datapath.test_run(Hook::FromPod, &run)?;
            let action = output.action;
            ensure!(action == -1, "a packet did not pass: {action}");
            Ok(f64::from(output.nanoseconds))
        };
        let forget = |source: u16| -> Result<()> {
            let (pod, peer) = (pod.into(), peer.into());
            let key = FlowKey::new(&pod, source, &peer, PORT, protocol::TCP).0;
            ensure!(datapath.delete_flow(&key)?, "a flow was not there");
            Ok(())
        };
        pass(&packet(1, tcp::SYN), 1)?;
        self.established.push(pass(&packet(1, tcp::ACK), REPEAT)?);
        forget(1)?;
        let mut first = Vec::new();
        for source in 2..2 + CALLS {
            first.push(pass(&packet(source, tcp::SYN), 1)?);
            forget(source)?;
        }
        self.first.push(median(&first));
        Ok(())
    }

    /// The medians: of established connections, and of first packets.
    pub(super) fn medians(&self) -> [f64; 2] {
        [&self.established, &self.first].map(|rounds| median(rounds))
    }
}
