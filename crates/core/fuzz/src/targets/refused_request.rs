//! A refused request as it is kept, read to be verified again.

use posthorn_core::request::RawRequest;

pub fn run(data: &[u8]) {
    let Some((request, event)) = RawRequest::from_document(data) else { return };
    let document = request.to_document(event.as_deref()).to_string();
    let (again, same_event) = RawRequest::from_document(document.as_bytes()).expect("what we wrote ourselves");
    assert_eq!(event, same_event);
    assert_eq!((again.method, again.target, again.headers), (request.method, request.target, request.headers));
    assert_eq!(again.body, request.body);
}
