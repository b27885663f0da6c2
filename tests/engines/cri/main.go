// Makes one call of the container runtime interface and prints the answer:
//
//	cri SOCKET METHOD REQUEST
//
// METHOD is one of RuntimeService or ImageService, REQUEST and answer are JSON. It knows nothing
// about any of them but what their descriptors say.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: cri SOCKET METHOD REQUEST")
		os.Exit(2)
	}
	answer, err := call(os.Args[1], protoreflect.Name(os.Args[2]), os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(answer)
}

func call(socket string, name protoreflect.Name, request string) (string, error) {
	method, err := find(name)
	if err != nil {
		return "", err
	}
	in, out := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	if err := protojson.Unmarshal([]byte(request), in); err != nil {
		return "", err
	}
	connection, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	path := fmt.Sprintf("/%s/%s", method.Parent().FullName(), name)
	if err := connection.Invoke(ctx, path, in, out, grpc.WaitForReady(true)); err != nil {
		return "", err
	}
	return protojson.MarshalOptions{EmitUnpopulated: true, UseProtoNames: true}.Format(out), nil
}

func find(name protoreflect.Name) (protoreflect.MethodDescriptor, error) {
	services := runtime.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto.Services()
	for i := range services.Len() {
		if method := services.Get(i).Methods().ByName(name); method != nil {
			return method, nil
		}
	}
	return nil, fmt.Errorf("no method %s", name)
}
