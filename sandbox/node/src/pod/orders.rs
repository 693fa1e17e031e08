//! When a pod's containers are to end: its object is being deleted, is gone, or the agent shuts down.

use std::sync::Arc;
use std::time::Duration;

use super::handle::PodHandle;
use super::stop::{FLOOR, StopOrder, after, deletion_grace};
use crate::context::Context;

/// For pods whose object is gone.
const GONE_GRACE: Duration = Duration::from_secs(1);
/// For every pod when the agent shuts down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Turns what happens into orders, each stricter than the one before.
pub(super) async fn issue(cx: Arc<Context>, pod: Arc<PodHandle>) {
    let mut object = pod.object.subscribe();
    let mut given = None;
    let end = |grace: Duration| {
        let order = StopOrder { deadline: after(grace), hooks: false, floor: Duration::ZERO };
        pod.stop.send_replace(Some(order));
    };
    loop {
        let current = object.borrow_and_update().clone();
        if current.metadata.deletion_timestamp.is_some() {
            let grace = deletion_grace(&current);
            if given.is_none_or(|given| grace < given) {
                given = Some(grace);
                let order = StopOrder { deadline: after(grace), hooks: true, floor: FLOOR };
                pod.stop.send_replace(Some(order));
            }
        }
        tokio::select! {
            biased;
            () = cx.shutdown.cancelled() => return end(SHUTDOWN_GRACE),
            () = pod.gone.cancelled() => {
                end(GONE_GRACE);
                // A shutdown meanwhile does not lengthen it.
                return;
            }
            changed = object.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
