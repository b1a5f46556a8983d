"""A client that knows nothing of Hearth but its address: it learns the contract by reflection and streams a completion.

usage: python_client.py ADDRESS MODEL
"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "hearth.inference.v1.InferenceService"


def main(address: str, model: str) -> None:
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = sorted(database.get_services())
        print("services:", ", ".join(services))
        assert SERVICE in services and "hearth.inference.v1.ModelService" in services, services

        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName(SERVICE).FindMethodByName("Generate")
        request_type = message_factory.GetMessageClass(method.input_type)
        response_type = message_factory.GetMessageClass(method.output_type)
        generate = channel.unary_stream(
            f"/{SERVICE}/Generate",
            request_serializer=request_type.SerializeToString,
            response_deserializer=response_type.FromString,
        )

        request = request_type(model=model, text="Once upon a time")
        request.stopping.max_tokens = 8
        request.stopping.ignore_eos = True
        events = [event.WhichOneof("event") for event in generate(request, timeout=60)]
        print("events:", ", ".join(events))
        assert events[:2] == ["started", "prefilled"] and events[-1] == "finished" and "delta" in events, events

        try:
            list(generate(request_type(model="nobody", text="x"), timeout=60))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            print("unknown model:", error.details())
        else:
            raise AssertionError("an unknown model answered")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
