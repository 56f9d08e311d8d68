//! A broker under load: where it listens, and which processes it is.

use std::str::FromStr;

use super::broker_url::BrokerUrl;
use super::processes::Processes;

/// A broker, on the command line as `amqp://…` or `amqp://…,pid=12+34`.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    pub(super) url: BrokerUrl,
    /// Its processes, if they are known.
    pub(super) processes: Option<Processes>,
}

impl FromStr for Broker {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (url, pids) = text.split_once(",pid=").map_or((text, None), |(url, pids)| (url, Some(pids)));
        let pids = pids.map_or_else(|| Ok(Vec::new()), |pids| pids.split('+').map(str::parse).collect());
        let pids: Vec<u32> = pids.map_err(|_| "pid= is followed by process numbers, with + between them".to_owned())?;
        Ok(Self { url: url.parse()?, processes: Processes::new(&pids) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_may_be_named_with_a_url() {
        let broker: Broker = "amqp://127.0.0.1:5800,pid=12+34".parse().unwrap();
        assert_eq!(broker.url.port, 5800);
        assert!(broker.processes.is_some());
        assert!("amqp://host".parse::<Broker>().unwrap().processes.is_none());
        for text in ["amqp://host,pid=", "amqp://host,pid=1;2", "http://host"] {
            assert!(text.parse::<Broker>().is_err(), "{text}");
        }
    }
}
