//! When to ask for pods that are not found: at once when something is new, then ever more seldom.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::resolve::Question;

/// Time until a pod that did not answer is asked again; doubles each time up to `ASK_MOST`.
const ASK_FIRST: Duration = Duration::from_secs(1);
/// See `ASK_FIRST`.
const ASK_MOST: Duration = Duration::from_secs(60);
/// Most pods asked in one go.
const ASK_AT_ONCE: usize = 64;

/// When which address was asked for.
#[derive(Debug, Default)]
pub(super) struct Questions {
    asked: BTreeMap<IpAddr, Asked>,
}

#[derive(Debug)]
struct Asked {
    question: Question,
    again: Instant,
    pause: Duration,
}

impl Asked {
    /// Whether a question differs so that an answer is more likely than before: it is another pod's, or there is a new port.
    fn is_news(&self, question: &Question) -> bool {
        let known = &self.question;
        known.pod != question.pod
            || known.bridge != question.bridge
            || !question.free.is_subset(&known.free)
    }
}

impl Questions {
    /// Which of the open questions are to be asked now; those that are not open any more are forgotten.
    pub(super) fn due<'q>(
        &mut self,
        open: &'q BTreeMap<IpAddr, Question>,
        now: Instant,
    ) -> Vec<(IpAddr, &'q Question)> {
        self.asked.retain(|address, asked| {
            let question = open.get(address);
            question.is_some_and(|question| !asked.is_news(question))
        });
        let mut due = Vec::new();
        for (&address, question) in open {
            let known = self.asked.get(&address);
            if known.is_some_and(|asked| asked.again > now) {
                continue;
            }
            let before = known.map_or(ASK_FIRST / 2, |asked| asked.pause);
            let (wait, pause) = if due.len() < ASK_AT_ONCE {
                due.push((address, question));
                let pause = (before * 2).min(ASK_MOST);
                (pause, pause)
            } else {
                // Its turn is in the next round.
                (ASK_FIRST, before)
            };
            let asked = Asked {
                question: question.clone(),
                again: now + wait,
                pause,
            };
            self.asked.insert(address, asked);
        }
        due
    }

    /// Time until the next question.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        let next = self.asked.values().map(|asked| asked.again).min()?;
        Some(next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(pod: &str, free: &[u32]) -> Question {
        Question {
            bridge: 7,
            pod: pod.to_owned(),
            free: free.iter().copied().collect(),
            outdated: false,
        }
    }

    fn open(pods: u8) -> BTreeMap<IpAddr, Question> {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        (0..pods)
            .map(|last| (address(last), question("pod", &[8, 9])))
            .collect()
    }

    #[test]
    fn questions_are_bounded_in_number() {
        let mut questions = Questions::default();
        let start = Instant::now();
        let open = open(100);
        assert_eq!(questions.due(&open, start).len(), ASK_AT_ONCE);
        assert_eq!(questions.due(&open, start).len(), 0);
        assert_eq!(questions.next(start), Some(ASK_FIRST));
        // Everyone has a turn.
        let mut asked: Vec<IpAddr> = Vec::new();
        for second in 1..8 {
            let due = questions.due(&open, start + second * ASK_FIRST);
            asked.extend(due.iter().map(|(address, _)| address));
        }
        assert!(open.keys().all(|address| asked.contains(address)));
    }

    #[test]
    fn questions_are_bounded_in_rate() {
        let mut questions = Questions::default();
        let start = Instant::now();
        let one = open(1);
        let mut asked = 0;
        let hour = 3600;
        for second in 0..hour {
            let now = start + Duration::from_secs(second);
            asked += questions.due(&one, now).len();
        }
        assert!(
            (hour / 60..hour / 60 + 10).contains(&(asked as u64)),
            "{asked}"
        );
        assert!(questions.due(&BTreeMap::new(), start).is_empty());
        assert_eq!(questions.next(start), None);
    }

    #[test]
    fn news_is_asked_about_at_once() {
        for (pod, free, news) in [
            ("pod", &[8, 9][..], false),
            // Another pod took its port.
            ("pod", &[9], false),
            ("pod", &[9, 10], true),
            // The address has another pod.
            ("next", &[8, 9], true),
        ] {
            let mut questions = Questions::default();
            let start = Instant::now();
            let mut open = open(1);
            assert_eq!(questions.due(&open, start).len(), 1);
            *open.values_mut().next().expect("question") = question(pod, free);
            let due = questions.due(&open, start).len();
            assert_eq!(due, usize::from(news), "{pod} {free:?}");
            // Once.
            assert!(questions.due(&open, start).is_empty());
        }
    }
}
