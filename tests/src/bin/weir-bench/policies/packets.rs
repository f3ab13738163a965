//! Packets at a pod under policies.

use anyhow::{Result, ensure};
use weir::datapath::{KernelDatapath, TestRun};
use weir_common::abi::{FlowKey, Hook};
use weir_common::logic::protocol;
use weir_tests::packets::{Content, Packet, tcp};

use super::population::{PORT, Population, address};
use crate::table::median;

const CALLS: u16 = 500;
const REPEAT: u32 = 100_000;

/// Nanoseconds of a packet from the pod to the policy's block.
pub(super) struct Packets {
    pub(super) established: f64,
    pub(super) first: f64,
}

pub(super) fn measure(
    datapath: &KernelDatapath,
    device: u32,
    population: Population,
    rounds: u32,
) -> Result<Packets> {
    ensure!(population.pods > 0, "there is no pod");
    let peer = std::net::IpAddr::from([172, 16, 0, 0]);
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
        ensure!(
            output.action == -1,
            "a packet did not pass: {}",
            output.action
        );
        Ok(f64::from(output.nanoseconds))
    };
    let forget = |source: u16| -> Result<()> {
        let (pod, peer) = (pod.into(), peer.into());
        let key = FlowKey::new(&pod, source, &peer, PORT, protocol::TCP).0;
        ensure!(datapath.delete_flow(&key)?, "a flow was not there");
        Ok(())
    };
    let (mut established, mut first) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        pass(&packet(1, tcp::SYN), 1)?;
        established.push(pass(&packet(1, tcp::ACK), REPEAT)?);
        forget(1)?;
        for source in 2..2 + CALLS {
            first.push(pass(&packet(source, tcp::SYN), 1)?);
            forget(source)?;
        }
    }
    Ok(Packets {
        established: median(&established),
        first: median(&first),
    })
}
