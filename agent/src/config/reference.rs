//! The reference page, `deploy/configuration.md`.

use std::fmt::Write as _;

use super::kube_proxy::{self, FIELDS, Fate};
use super::{API_VERSION, Definition, KIND, definitions};

/// The page in Markdown, from the definitions alone.
#[must_use]
pub fn reference() -> String {
    let mut page = format!(
        "# Configuration

<!-- Written by `weir config reference`. -->

Every option of `weir run` is a flag, an environment variable and a key of a YAML file given by `--config FILE` or
`WEIR_CONFIG`. A flag counts more than the environment, that more than the file, that more than the default.

```yaml
apiVersion: {API_VERSION}
kind: {KIND}
apiServers: [https://10.0.0.1:6443]
logFormat: json
```

Unknown keys and values of another form are errors. A change takes effect when the agent is started again.

| command | what it does |
| --- | --- |
| `weir config print` | prints a file with all options, their meaning and their defaults |
| `weir config print --effective` | prints what would count, given these flags, this environment and this file, and who said so |
| `weir config check` | says what `weir run` would refuse about these flags, this environment and this file |

Other commands find an agent whose `bpffs` or `runDir` is not the default by their own flag or the environment variable.

## Options

| key | flag | environment | default | value | meaning |
| --- | --- | --- | --- | --- | --- |
"
    );
    for option in definitions() {
        let default = match option.write(&option.defaults()) {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let _ = writeln!(
            page,
            "| `{}` | `{}` | `{}` | {default} | {} | {} |",
            option.key(),
            option.flag(),
            option.environment(),
            cell(&option.expected()),
            cell(&option.meaning()),
        );
    }
    let _ = write!(
        page,
        "
## From kube-proxy

`--config` also takes a {} ({}), such as kubeadm's ConfigMap `kube-proxy` has it.
What has a meaning for Weir is taken over; every other field that is set to something else than its default is named in
the log and by `weir config print --effective`, which also turns such a file into Weir's own form:

    weir config print --effective --config kube-proxy.yaml > weir.yaml

| field | what becomes of it |
| --- | --- |
",
        kube_proxy::KIND,
        kube_proxy::API_VERSION,
    );
    for (fate, fields) in fates() {
        let _ = writeln!(page, "| {} | {fate} |", fields.join(", "));
    }
    page
}

/// kube-proxy's fields by what becomes of them, in their order.
fn fates() -> Vec<(String, Vec<String>)> {
    let options = definitions();
    let mut fates: Vec<(String, Vec<String>)> = Vec::new();
    for field in FIELDS {
        let fate = match field.fate {
            Fate::Ignored(reason) => format!("ignored: {reason}"),
            Fate::Sets { option, .. } => {
                let option = options.iter().find(|one| one.id() == option);
                format!("`{}`", option.map(Definition::key).unwrap_or_default())
            }
        };
        let path = format!("`{}`", field.path);
        match fates.iter_mut().find(|(known, _)| *known == fate) {
            Some((_, fields)) => fields.push(path),
            None => fates.push((fate, vec![path])),
        }
    }
    fates
}

/// A pipe would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
