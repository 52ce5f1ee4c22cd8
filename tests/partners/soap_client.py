# Calls the server with `zeep`, a SOAP client that reads its WSDL: at the URL of the first argument, or through a gateway
# whose URL is the second one. Prints a line of JSON for each call.
import json
import sys

from zeep import Client
from zeep.exceptions import Fault
from zeep.helpers import serialize_object

server, address = sys.argv[1], sys.argv[2]
client = Client(f"{server}?wsdl")
binding = next(iter(client.wsdl.bindings))
service = client.create_service(binding, address)
for name in ["pear", "a <b> & \u00fc", "missing", "broken"]:
    try:
        print(json.dumps(serialize_object(service.GetItem(name), dict), default=str))
    except Fault as fault:
        print(json.dumps({"fault": fault.message}))
print(json.dumps(serialize_object(service.ListItems(["x", "y"]), dict), default=str))
