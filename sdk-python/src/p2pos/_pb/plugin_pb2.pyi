from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    STREAM: _ClassVar[Kind]
    DATAGRAM: _ClassVar[Kind]

class Attachment(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTACHMENT_UNSPECIFIED: _ClassVar[Attachment]
    MUX: _ClassVar[Attachment]
    SOCKET: _ClassVar[Attachment]

class RelayUse(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELAY_USE_UNSPECIFIED: _ClassVar[RelayUse]
    RELAY_ALLOW: _ClassVar[RelayUse]
    RELAY_NEVER: _ClassVar[RelayUse]

class PathKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PATH_KIND_UNSPECIFIED: _ClassVar[PathKind]
    DIRECT: _ClassVar[PathKind]
    LAN: _ClassVar[PathKind]
    LOOPBACK: _ClassVar[PathKind]
    RELAYED: _ClassVar[PathKind]

class Trust(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUST_UNSPECIFIED: _ClassVar[Trust]
    CONTACTS: _ClassVar[Trust]
    ANYONE: _ClassVar[Trust]

class EventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_KIND_UNSPECIFIED: _ClassVar[EventKind]
    PEER: _ClassVar[EventKind]
    CONTACT: _ClassVar[EventKind]
    PATH: _ClassVar[EventKind]
KIND_UNSPECIFIED: Kind
STREAM: Kind
DATAGRAM: Kind
ATTACHMENT_UNSPECIFIED: Attachment
MUX: Attachment
SOCKET: Attachment
RELAY_USE_UNSPECIFIED: RelayUse
RELAY_ALLOW: RelayUse
RELAY_NEVER: RelayUse
PATH_KIND_UNSPECIFIED: PathKind
DIRECT: PathKind
LAN: PathKind
LOOPBACK: PathKind
RELAYED: PathKind
TRUST_UNSPECIFIED: Trust
CONTACTS: Trust
ANYONE: Trust
EVENT_KIND_UNSPECIFIED: EventKind
PEER: EventKind
CONTACT: EventKind
PATH: EventKind

class Frame(_message.Message):
    __slots__ = ("rid", "data", "window", "datagram", "reset", "stop_sending", "stream_closed", "open", "opened", "incoming", "accept", "reject", "ping", "pong", "error", "hello", "welcome", "challenge", "auth_proof", "refused", "attach", "attached", "done", "register", "unregister", "cancel", "ready", "status", "log", "subscribe", "event", "contact_list", "contacts", "go_away", "shutdown")
    RID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    DATAGRAM_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    STOP_SENDING_FIELD_NUMBER: _ClassVar[int]
    STREAM_CLOSED_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    INCOMING_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    AUTH_PROOF_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    UNREGISTER_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    CONTACT_LIST_FIELD_NUMBER: _ClassVar[int]
    CONTACTS_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    SHUTDOWN_FIELD_NUMBER: _ClassVar[int]
    rid: int
    data: Data
    window: Window
    datagram: Datagram
    reset: Reset
    stop_sending: StopSending
    stream_closed: StreamClosed
    open: Open
    opened: Opened
    incoming: Incoming
    accept: Accept
    reject: Reject
    ping: Ping
    pong: Pong
    error: Error
    hello: Hello
    welcome: Welcome
    challenge: Challenge
    auth_proof: AuthProof
    refused: Refused
    attach: Attach
    attached: Attached
    done: Done
    register: Register
    unregister: Unregister
    cancel: Cancel
    ready: Ready
    status: Status
    log: Log
    subscribe: Subscribe
    event: Event
    contact_list: ContactList
    contacts: Contacts
    go_away: GoAway
    shutdown: Shutdown
    def __init__(self, rid: _Optional[int] = ..., data: _Optional[_Union[Data, _Mapping]] = ..., window: _Optional[_Union[Window, _Mapping]] = ..., datagram: _Optional[_Union[Datagram, _Mapping]] = ..., reset: _Optional[_Union[Reset, _Mapping]] = ..., stop_sending: _Optional[_Union[StopSending, _Mapping]] = ..., stream_closed: _Optional[_Union[StreamClosed, _Mapping]] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., opened: _Optional[_Union[Opened, _Mapping]] = ..., incoming: _Optional[_Union[Incoming, _Mapping]] = ..., accept: _Optional[_Union[Accept, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., challenge: _Optional[_Union[Challenge, _Mapping]] = ..., auth_proof: _Optional[_Union[AuthProof, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., attach: _Optional[_Union[Attach, _Mapping]] = ..., attached: _Optional[_Union[Attached, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ..., register: _Optional[_Union[Register, _Mapping]] = ..., unregister: _Optional[_Union[Unregister, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., log: _Optional[_Union[Log, _Mapping]] = ..., subscribe: _Optional[_Union[Subscribe, _Mapping]] = ..., event: _Optional[_Union[Event, _Mapping]] = ..., contact_list: _Optional[_Union[ContactList, _Mapping]] = ..., contacts: _Optional[_Union[Contacts, _Mapping]] = ..., go_away: _Optional[_Union[GoAway, _Mapping]] = ..., shutdown: _Optional[_Union[Shutdown, _Mapping]] = ...) -> None: ...

class Data(_message.Message):
    __slots__ = ("stream", "payload", "fin")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    FIN_FIELD_NUMBER: _ClassVar[int]
    stream: int
    payload: bytes
    fin: bool
    def __init__(self, stream: _Optional[int] = ..., payload: _Optional[bytes] = ..., fin: bool = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("stream", "bytes")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    stream: int
    bytes: int
    def __init__(self, stream: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Datagram(_message.Message):
    __slots__ = ("flow", "payload")
    FLOW_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    flow: int
    payload: bytes
    def __init__(self, flow: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class Reset(_message.Message):
    __slots__ = ("stream", "code", "app_code")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    APP_CODE_FIELD_NUMBER: _ClassVar[int]
    stream: int
    code: int
    app_code: int
    def __init__(self, stream: _Optional[int] = ..., code: _Optional[int] = ..., app_code: _Optional[int] = ...) -> None: ...

class StopSending(_message.Message):
    __slots__ = ("stream", "code", "app_code")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    APP_CODE_FIELD_NUMBER: _ClassVar[int]
    stream: int
    code: int
    app_code: int
    def __init__(self, stream: _Optional[int] = ..., code: _Optional[int] = ..., app_code: _Optional[int] = ...) -> None: ...

class StreamClosed(_message.Message):
    __slots__ = ("stream", "cause", "code", "app_code", "bytes_in", "bytes_out")
    class Cause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CAUSE_UNSPECIFIED: _ClassVar[StreamClosed.Cause]
        FINISHED: _ClassVar[StreamClosed.Cause]
        RESET_LOCAL: _ClassVar[StreamClosed.Cause]
        RESET_REMOTE: _ClassVar[StreamClosed.Cause]
    CAUSE_UNSPECIFIED: StreamClosed.Cause
    FINISHED: StreamClosed.Cause
    RESET_LOCAL: StreamClosed.Cause
    RESET_REMOTE: StreamClosed.Cause
    STREAM_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    APP_CODE_FIELD_NUMBER: _ClassVar[int]
    BYTES_IN_FIELD_NUMBER: _ClassVar[int]
    BYTES_OUT_FIELD_NUMBER: _ClassVar[int]
    stream: int
    cause: StreamClosed.Cause
    code: int
    app_code: int
    bytes_in: int
    bytes_out: int
    def __init__(self, stream: _Optional[int] = ..., cause: _Optional[_Union[StreamClosed.Cause, str]] = ..., code: _Optional[int] = ..., app_code: _Optional[int] = ..., bytes_in: _Optional[int] = ..., bytes_out: _Optional[int] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("stream", "peer", "protocols", "kind", "attachment", "timeout_ms", "relay")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    stream: int
    peer: str
    protocols: _containers.RepeatedScalarFieldContainer[str]
    kind: Kind
    attachment: Attachment
    timeout_ms: int
    relay: RelayUse
    def __init__(self, stream: _Optional[int] = ..., peer: _Optional[str] = ..., protocols: _Optional[_Iterable[str]] = ..., kind: _Optional[_Union[Kind, str]] = ..., attachment: _Optional[_Union[Attachment, str]] = ..., timeout_ms: _Optional[int] = ..., relay: _Optional[_Union[RelayUse, str]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("stream", "protocol", "path", "ticket", "datagram_max")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    DATAGRAM_MAX_FIELD_NUMBER: _ClassVar[int]
    stream: int
    protocol: str
    path: PathKind
    ticket: bytes
    datagram_max: int
    def __init__(self, stream: _Optional[int] = ..., protocol: _Optional[str] = ..., path: _Optional[_Union[PathKind, str]] = ..., ticket: _Optional[bytes] = ..., datagram_max: _Optional[int] = ...) -> None: ...

class Incoming(_message.Message):
    __slots__ = ("stream", "peer", "protocol", "kind", "path", "petname", "is_contact", "ticket", "datagram_max")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    PETNAME_FIELD_NUMBER: _ClassVar[int]
    IS_CONTACT_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    DATAGRAM_MAX_FIELD_NUMBER: _ClassVar[int]
    stream: int
    peer: str
    protocol: str
    kind: Kind
    path: PathKind
    petname: str
    is_contact: bool
    ticket: bytes
    datagram_max: int
    def __init__(self, stream: _Optional[int] = ..., peer: _Optional[str] = ..., protocol: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ..., path: _Optional[_Union[PathKind, str]] = ..., petname: _Optional[str] = ..., is_contact: bool = ..., ticket: _Optional[bytes] = ..., datagram_max: _Optional[int] = ...) -> None: ...

class Accept(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: int
    def __init__(self, stream: _Optional[int] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("stream", "code", "reason")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    stream: int
    code: int
    reason: str
    def __init__(self, stream: _Optional[int] = ..., code: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "name", "message", "hint", "retry_after_ms", "stream", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: int
    name: str
    message: str
    hint: str
    retry_after_ms: int
    stream: int
    details: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, code: _Optional[int] = ..., name: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., stream: _Optional[int] = ..., details: _Optional[_Iterable[str]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("magic", "min_version", "max_version", "features", "sdk", "launch_token", "client_nonce", "frame_bytes_max", "stream_window_bytes", "auto_window")
    MAGIC_FIELD_NUMBER: _ClassVar[int]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_VERSION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SDK_FIELD_NUMBER: _ClassVar[int]
    LAUNCH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NONCE_FIELD_NUMBER: _ClassVar[int]
    FRAME_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    STREAM_WINDOW_BYTES_FIELD_NUMBER: _ClassVar[int]
    AUTO_WINDOW_FIELD_NUMBER: _ClassVar[int]
    magic: str
    min_version: int
    max_version: int
    features: _containers.RepeatedScalarFieldContainer[str]
    sdk: str
    launch_token: str
    client_nonce: bytes
    frame_bytes_max: int
    stream_window_bytes: int
    auto_window: bool
    def __init__(self, magic: _Optional[str] = ..., min_version: _Optional[int] = ..., max_version: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., sdk: _Optional[str] = ..., launch_token: _Optional[str] = ..., client_nonce: _Optional[bytes] = ..., frame_bytes_max: _Optional[int] = ..., stream_window_bytes: _Optional[int] = ..., auto_window: bool = ...) -> None: ...

class Challenge(_message.Message):
    __slots__ = ("server_nonce", "server_proof")
    SERVER_NONCE_FIELD_NUMBER: _ClassVar[int]
    SERVER_PROOF_FIELD_NUMBER: _ClassVar[int]
    server_nonce: bytes
    server_proof: bytes
    def __init__(self, server_nonce: _Optional[bytes] = ..., server_proof: _Optional[bytes] = ...) -> None: ...

class AuthProof(_message.Message):
    __slots__ = ("client_proof",)
    CLIENT_PROOF_FIELD_NUMBER: _ClassVar[int]
    client_proof: bytes
    def __init__(self, client_proof: _Optional[bytes] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("version", "features", "daemon", "plugin_id", "instance_id", "peer_id", "grants", "limits")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    DAEMON_FIELD_NUMBER: _ClassVar[int]
    PLUGIN_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    version: int
    features: _containers.RepeatedScalarFieldContainer[str]
    daemon: str
    plugin_id: str
    instance_id: str
    peer_id: str
    grants: _containers.RepeatedScalarFieldContainer[str]
    limits: Limits
    def __init__(self, version: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., daemon: _Optional[str] = ..., plugin_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., peer_id: _Optional[str] = ..., grants: _Optional[_Iterable[str]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("frame_bytes_max", "data_bytes_max", "stream_window_bytes", "streams_max", "protocols_max", "requests_max", "log_line_bytes_max")
    FRAME_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    DATA_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    STREAM_WINDOW_BYTES_FIELD_NUMBER: _ClassVar[int]
    STREAMS_MAX_FIELD_NUMBER: _ClassVar[int]
    PROTOCOLS_MAX_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_MAX_FIELD_NUMBER: _ClassVar[int]
    LOG_LINE_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    frame_bytes_max: int
    data_bytes_max: int
    stream_window_bytes: int
    streams_max: int
    protocols_max: int
    requests_max: int
    log_line_bytes_max: int
    def __init__(self, frame_bytes_max: _Optional[int] = ..., data_bytes_max: _Optional[int] = ..., stream_window_bytes: _Optional[int] = ..., streams_max: _Optional[int] = ..., protocols_max: _Optional[int] = ..., requests_max: _Optional[int] = ..., log_line_bytes_max: _Optional[int] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("code", "message", "hint", "min_version", "max_version")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_VERSION_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    hint: str
    min_version: int
    max_version: int
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., min_version: _Optional[int] = ..., max_version: _Optional[int] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("ticket",)
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ticket: bytes
    def __init__(self, ticket: _Optional[bytes] = ...) -> None: ...

class Attached(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Register(_message.Message):
    __slots__ = ("protocols",)
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    protocols: _containers.RepeatedCompositeFieldContainer[Protocol]
    def __init__(self, protocols: _Optional[_Iterable[_Union[Protocol, _Mapping]]] = ...) -> None: ...

class Protocol(_message.Message):
    __slots__ = ("name", "kind", "trust", "concurrent_max", "attachment")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    CONCURRENT_MAX_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: Kind
    trust: Trust
    concurrent_max: int
    attachment: Attachment
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ..., trust: _Optional[_Union[Trust, str]] = ..., concurrent_max: _Optional[int] = ..., attachment: _Optional[_Union[Attachment, str]] = ...) -> None: ...

class Unregister(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("target",)
    TARGET_FIELD_NUMBER: _ClassVar[int]
    target: int
    def __init__(self, target: _Optional[int] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ("health", "text")
    class Health(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        HEALTH_UNSPECIFIED: _ClassVar[Status.Health]
        OK: _ClassVar[Status.Health]
        DEGRADED: _ClassVar[Status.Health]
        WAITING_NETWORK: _ClassVar[Status.Health]
    HEALTH_UNSPECIFIED: Status.Health
    OK: Status.Health
    DEGRADED: Status.Health
    WAITING_NETWORK: Status.Health
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    health: Status.Health
    text: str
    def __init__(self, health: _Optional[_Union[Status.Health, str]] = ..., text: _Optional[str] = ...) -> None: ...

class Log(_message.Message):
    __slots__ = ("level", "text")
    class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        LEVEL_UNSPECIFIED: _ClassVar[Log.Level]
        DEBUG: _ClassVar[Log.Level]
        INFO: _ClassVar[Log.Level]
        WARN: _ClassVar[Log.Level]
        ERROR: _ClassVar[Log.Level]
    LEVEL_UNSPECIFIED: Log.Level
    DEBUG: Log.Level
    INFO: Log.Level
    WARN: Log.Level
    ERROR: Log.Level
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    level: Log.Level
    text: str
    def __init__(self, level: _Optional[_Union[Log.Level, str]] = ..., text: _Optional[str] = ...) -> None: ...

class Subscribe(_message.Message):
    __slots__ = ("kinds",)
    KINDS_FIELD_NUMBER: _ClassVar[int]
    kinds: _containers.RepeatedScalarFieldContainer[EventKind]
    def __init__(self, kinds: _Optional[_Iterable[_Union[EventKind, str]]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("seq", "kind", "missed", "peer", "petname", "what")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    PETNAME_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    kind: EventKind
    missed: int
    peer: str
    petname: str
    what: str
    def __init__(self, seq: _Optional[int] = ..., kind: _Optional[_Union[EventKind, str]] = ..., missed: _Optional[int] = ..., peer: _Optional[str] = ..., petname: _Optional[str] = ..., what: _Optional[str] = ...) -> None: ...

class ContactList(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Contacts(_message.Message):
    __slots__ = ("contacts",)
    CONTACTS_FIELD_NUMBER: _ClassVar[int]
    contacts: _containers.RepeatedCompositeFieldContainer[Contact]
    def __init__(self, contacts: _Optional[_Iterable[_Union[Contact, _Mapping]]] = ...) -> None: ...

class Contact(_message.Message):
    __slots__ = ("peer", "petname", "is_connected")
    PEER_FIELD_NUMBER: _ClassVar[int]
    PETNAME_FIELD_NUMBER: _ClassVar[int]
    IS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    peer: str
    petname: str
    is_connected: bool
    def __init__(self, peer: _Optional[str] = ..., petname: _Optional[str] = ..., is_connected: bool = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("code", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Shutdown(_message.Message):
    __slots__ = ("deadline_ms", "reason")
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    reason: str
    def __init__(self, deadline_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...
