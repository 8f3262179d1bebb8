// Both sides of TLS by another library than the gateway's, each of which takes only the key exchanges that it is given:
//
//	tls-peer client ADDRESS AUTHORITY GROUP...   asks for / and prints its status line and the version of TLS
//	tls-peer server CHAIN KEY GROUP...           prints where it listens and answers each request with the version
//
// GROUP is a number of the registry of TLS, such as 4588 for X25519MLKEM768 and 29 for X25519.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) < 5 {
		must(fmt.Errorf("usage: %s client|server A B GROUP", os.Args[0]))
	}
	config := &tls.Config{}
	for _, group := range os.Args[4:] {
		number, err := strconv.ParseUint(group, 10, 16)
		must(err)
		config.CurvePreferences = append(config.CurvePreferences, tls.CurveID(number))
	}
	if os.Args[1] == "client" {
		client(os.Args[2], os.Args[3], config)
	} else {
		server(os.Args[2], os.Args[3], config)
	}
}

func client(address, authority string, config *tls.Config) {
	roots, err := os.ReadFile(authority)
	must(err)
	config.RootCAs = x509.NewCertPool()
	config.RootCAs.AppendCertsFromPEM(roots)
	config.ServerName = "shop.example"
	connection, err := tls.Dial("tcp", address, config)
	must(err)
	_, err = io.WriteString(connection, "GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n")
	must(err)
	status, err := bufio.NewReader(connection).ReadString('\n')
	must(err)
	fmt.Print(status, tls.VersionName(connection.ConnectionState().Version), "\n")
}

func server(chain, key string, config *tls.Config) {
	pair, err := tls.LoadX509KeyPair(chain, key)
	must(err)
	config.Certificates = []tls.Certificate{pair}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(listener.Addr())
	must(http.Serve(tls.NewListener(listener, config), http.HandlerFunc(func(to http.ResponseWriter, request *http.Request) {
		fmt.Fprint(to, tls.VersionName(request.TLS.Version))
	})))
}
