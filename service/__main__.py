"""``python -m service``: the API process, as `fourstep up` starts it."""

from jobs.settings import ApiSettings
from service.server import serve

serve(ApiSettings())
