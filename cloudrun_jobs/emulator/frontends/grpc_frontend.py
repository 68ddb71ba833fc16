"""The gRPC frontend, for the Python, Go and Java clients."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.events import CallFailed, Events
from cloudrun_jobs.emulator.service import ANONYMOUS, Caller, Method, Service, raw, raw_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudrun_jobs.emulator.tokens import Tokens

# WaitOperation occupies a thread until it returns.
MAX_THREADS = 128
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class GrpcFrontend:
    def __init__(self, service: Service, tokens: Tokens, events: Events) -> None:
        self._service = service
        self._tokens = tokens
        self._events = events

    def serve(self) -> int:
        """Serve on a free port; return its number."""
        self._pool = ThreadPoolExecutor(MAX_THREADS, "emulator-grpc")
        # With SO_REUSEPORT, another emulator could receive the calls.
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
        self._server = grpc.server(self._pool, options=options)
        self._server.add_generic_rpc_handlers(self._handlers())
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return int(port)

    def stop(self) -> None:
        self._server.stop(grace=0.2).wait()
        self._pool.shutdown()

    def _handlers(self) -> list[Any]:
        services: dict[str, dict[str, Any]] = defaultdict(dict)
        for method in self._service.methods.values():
            if method.request is dict:
                continue
            kind, handle = grpc.unary_unary_rpc_method_handler, self._handler(method)
            if method.streams:
                kind, handle = grpc.stream_stream_rpc_method_handler, self._stream_handler(method)
            services[method.service][method.rpc] = kind(
                handle,
                request_deserializer=_deserializer(method.request),
                response_serializer=lambda message: raw(message).SerializeToString(),
            )
        served = [grpc.method_handlers_generic_handler(name, rpcs) for name, rpcs in services.items()]
        return [*served, _NotServed(self._events)]

    def _handler(self, method: Method) -> Callable[[Any, Any], Any]:
        def handle(request: Any, context: Any) -> Any:
            try:
                return self._service.call(method.key, request, self._caller(context))
            except ServiceError as error:
                self._events.announce(CallFailed(method.key, error.code, error.message))
                _abort(context, error)

        return handle

    def _stream_handler(self, method: Method) -> Callable[[Any, Any], Any]:
        """Return a handler for a stream of requests, of which the first decides what is streamed back."""
        open_stream = self._handler(method)

        def handle(requests: Any, context: Any) -> Any:
            request = next(requests, None)
            if request is None:
                return
            stream = open_stream(request, context)
            if not context.add_callback(stream.close):  # The call has ended already.
                stream.close()
            yield from stream

        return handle

    def _caller(self, context: Any) -> Caller:
        metadata = dict(context.invocation_metadata())
        return Caller(self._tokens.principal(str(metadata.get("authorization", ""))) or ANONYMOUS)


def _abort(context: Any, error: ServiceError) -> NoReturn:
    if error.details:
        context.set_trailing_metadata((("grpc-status-details-bin", error.status()),))
    context.abort(error.grpc_code, error.message)
    raise AssertionError("abort() raises an exception")


class _NotServed(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handles the methods that no other handler has."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def service(self, call: Any) -> Any:
        def abort(_: Any, context: Any) -> None:
            message = f"The emulator does not serve {call.method}."
            self._events.announce(CallFailed(call.method, "UNIMPLEMENTED", message))
            context.abort(grpc.StatusCode.UNIMPLEMENTED, message)

        return grpc.stream_stream_rpc_method_handler(abort)


def _deserializer(request_class: Any) -> Callable[[bytes], Any]:
    """Return a parser of request bytes, which produces proto-plus messages where the client uses them."""
    parse = raw_class(request_class).FromString
    if not hasattr(request_class, "wrap"):
        return parse  # type: ignore[no-any-return]
    return lambda data: request_class.wrap(parse(data))
