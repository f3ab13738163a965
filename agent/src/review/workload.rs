//! Which workload a pod belongs to, by what controllers write into names and labels.

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
    let label = |key: &str| pod.labels.get(key).map(String::as_str);
    let cut = |name: &str| Some(name.rsplit_once('-')?.0.to_owned());
    let name = &pod.name.name;
    if is_stand_in(&pod.name) {
        return None;
    }
    let workload = if let Some(hash) = label("pod-template-hash") {
        let set = cut(name)?;
        format!("deploy/{}", set.strip_suffix(hash)?.strip_suffix('-')?)
    } else if label("statefulset.kubernetes.io/pod-name").is_some() {
        format!("sts/{}", cut(name)?)
    } else if let Some(job) = label("batch.kubernetes.io/job-name") {
        match job.rsplit_once('-') {
            // A CronJob names its Jobs after the minute that they are of.
            Some((cron, minute)) if minute.len() >= 8 && minute.parse::<u64>().is_ok() => {
                format!("cronjob/{cron}")
            }
            _ => format!("job/{job}"),
        }
    } else if label("controller-revision-hash").is_some() {
        format!("ds/{}", cut(name)?)
    } else {
        return None;
    };
    Some(ObjectName::new(&pod.name.namespace, workload))
}
