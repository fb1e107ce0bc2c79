//! What `--redact` takes out of messages.

use event::L7Message;

pub(super) fn redact(message: &mut L7Message) {
    match message {
        L7Message::None => {}
        L7Message::Dns(dns) => dns.query.clear(),
        L7Message::Http(http) => http.path.clear(),
        L7Message::Kafka(kafka) => kafka.topic.clear(),
        L7Message::Tls(tls) => tls.server_name.clear(),
    }
}
