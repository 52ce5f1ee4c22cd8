# A SOAP server of `spyne`, for SOAP 1.1 at /11 and 1.2 at /12. It listens on the port of its argument.
import collections.abc
import http.cookies
import sys
import urllib.error
import urllib.parse
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, make_server

# spyne has a copy of an old six, whose names of modules Python 3.12 and later do not find.
MOVED = {"collections_abc": collections.abc, "http_cookies": http.cookies, "urllib": urllib}
MOVED |= {"urllib.error": urllib.error, "urllib.parse": urllib.parse, "urllib.request": urllib.request}
sys.modules |= {f"spyne.util.six.moves.{name}": module for name, module in MOVED.items()}

from spyne import Application, ComplexModel, Decimal, Fault, Iterable, ServiceBase, Unicode, rpc
from spyne.protocol.soap import Soap11, Soap12
from spyne.server.wsgi import WsgiApplication


class Item(ComplexModel):
    __namespace__ = "urn:shop"
    name = Unicode
    price = Decimal


class Shop(ServiceBase):
    @rpc(Unicode, _returns=Item)
    def GetItem(ctx, name):
        if name == "missing":
            raise Fault("Client.NotFound", "there is no such item <&>")
        if name == "broken":
            raise Fault("Server", "the database is away")
        return Item(name=name, price="1.50")

    @rpc(Unicode(max_occurs=20), _returns=Iterable(Item))
    def ListItems(ctx, names):
        return [Item(name=name, price="2") for name in names or []]


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


def application(protocol, name):
    shop = Application([Shop], "urn:shop", name, in_protocol=protocol(validator="lxml"), out_protocol=protocol())
    return WsgiApplication(shop)


versions = {"/11": application(Soap11, "Shop11"), "/12": application(Soap12, "Shop12")}


def serve(environ, start_response):
    return versions[environ["PATH_INFO"]](environ, start_response)


server = make_server("127.0.0.1", int(sys.argv[1]), serve, handler_class=Quiet)
print(f"listening on {sys.argv[1]}", flush=True)
server.serve_forever()
