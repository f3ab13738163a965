//! What the demo shows, in order.

mod metrics;
mod policies;
mod restarts;
mod spread;
mod wrong_port;

use anyhow::Result;

use crate::Demo;

type Act = fn(&mut Demo) -> Result<()>;

/// Each act under its title.
pub(crate) const ALL: [(&str, Act); 9] = [
    ("1. A Service spreads its connections", spread::spread),
    ("2. A backend turns unready", spread::unready),
    ("3. No policy: everything is open", policies::open),
    (
        "4. default-deny: everything is closed, name lookups too",
        policies::deny,
    ),
    ("5. The fix, applied as it was printed", policies::fix),
    ("6. What the shop needs, and no more", policies::allow),
    ("7. A Service with a wrong targetPort", wrong_port::play),
    (
        "8. Agents killed and started again under load",
        restarts::play,
    ),
    ("9. What was counted", metrics::play),
];
