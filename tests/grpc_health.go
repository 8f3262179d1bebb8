// grpc.health.v1 by grpc-go:
//
//	grpc-health-server ADDRESS SERVICE [CHAIN KEY]   serves, with TLS where there is a certificate
//
// SERVICE is SERVING at first, NOT_SERVING after SIGUSR1, and SERVING again after SIGUSR2.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) != 3 && len(os.Args) != 5 {
		must(fmt.Errorf("usage: %s ADDRESS SERVICE [CHAIN KEY]", os.Args[0]))
	}
	var options []grpc.ServerOption
	if len(os.Args) == 5 {
		transport, err := credentials.NewServerTLSFromFile(os.Args[3], os.Args[4])
		must(err)
		options = append(options, grpc.Creds(transport))
	}
	listener, err := net.Listen("tcp", os.Args[1])
	must(err)
	server, state := grpc.NewServer(options...), health.NewServer()
	healthpb.RegisterHealthServer(server, state)
	state.SetServingStatus(os.Args[2], healthpb.HealthCheckResponse_SERVING)
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for one := range told {
			status := healthpb.HealthCheckResponse_SERVING
			if one == syscall.SIGUSR1 {
				status = healthpb.HealthCheckResponse_NOT_SERVING
			}
			state.SetServingStatus(os.Args[2], status)
		}
	}()
	must(server.Serve(listener))
}
