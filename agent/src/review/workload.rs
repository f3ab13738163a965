//! Pods that stand for a workload's template.

use crate::model::{ObjectName, Pod};

/// What the second pod of a stand-in is called after the first.
const TWIN: &str = " (another)";

/// Whether a pod stands for a template: no pod of a cluster has such a name.
pub(super) fn is_stand_in(name: &ObjectName) -> bool {
    name.name.contains('/')
}

/// The second pod of a stand-in.
pub(super) fn twin(name: &ObjectName) -> ObjectName {
    ObjectName::new(&name.namespace, format!("{}{TWIN}", name.name))
}

/// The name by which a report speaks of a pod: that of its workload, else its own.
pub(super) fn spoken(pod: &Pod) -> ObjectName {
    if let Some(name) = pod.name.name.strip_suffix(TWIN) {
        return ObjectName::new(&pod.name.namespace, name);
    }
    workload_of(pod).unwrap_or_else(|| pod.name.clone())
}

/// The stand-in's name of the workload that made a pod; `None` for a pod that stands for itself, and for stand-ins.
pub(super) fn workload_of(pod: &Pod) -> Option<ObjectName> {
    pod.workload().filter(|_| !is_stand_in(&pod.name))
}
