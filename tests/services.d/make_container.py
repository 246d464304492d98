"""Makes a container of Azure Blob Storage, or finds it there: make_container.py ENDPOINT ACCOUNT KEY CONTAINER."""

import base64
import hashlib
import hmac
import sys
import urllib.error
import urllib.parse
import urllib.request
from email.utils import formatdate

endpoint, account, key, container = sys.argv[1:]
date = formatdate(usegmt=True)
headers = {"x-ms-date": date, "x-ms-version": "2021-12-02"}
url = f"{endpoint}/{container}?restype=container"
resource = f"/{account}{urllib.parse.urlparse(endpoint).path}/{container}\nrestype:container"
named = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
# Shared Key: the method, eleven standard headers that are empty here, the x-ms- headers, the resource.
text = "PUT" + "\n" * 12 + named + resource
signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
headers["Authorization"] = f"SharedKey {account}:{signature}"
try:
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers), timeout=5).close()
except urllib.error.HTTPError as error:
    if error.headers.get("x-ms-error-code") != "ContainerAlreadyExists":
        sys.exit(f"{error}: {error.headers.get('x-ms-error-code')}")
