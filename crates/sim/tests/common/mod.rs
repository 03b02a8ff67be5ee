//! What the directed tests share.

use std::time::Duration;

use anyhow::Result;
use latitude_sim::{ClientHost, Cluster};

/// How long a client's program may take, in simulated time.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// Runs a program in the region of a node.
pub(crate) fn run_near<T: 'static, F: Future<Output = Result<T>> + 'static>(
    cluster: &mut Cluster,
    node: u32,
    program: impl Fn(ClientHost) -> F,
) -> T {
    let regions = &cluster.layout().regions;
    let region = regions[(node as usize - 1) % regions.len()].clone();
    for _ in 0..cluster.layout().regions.len() {
        let here = region.clone();
        let ran = cluster.run_client(WITHIN, |host| {
            let program = (host.region == here).then(|| program(host));
            async move {
                match program {
                    Some(program) => Some(program.await),
                    None => None,
                }
            }
        });
        if let Some(result) = ran.unwrap() {
            return result.unwrap();
        }
    }
    unreachable!("clients are placed in every region in turn")
}
