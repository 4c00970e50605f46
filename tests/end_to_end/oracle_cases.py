"""All cases of the oracle."""

from tests.end_to_end.oracle_cases_failures import FAILURE_CASES
from tests.end_to_end.oracle_cases_input import INPUT_CASES
from tests.end_to_end.oracle_cases_request import REQUEST_CASES
from tests.end_to_end.oracle_cases_response import RESPONSE_CASES
from tests.end_to_end.oracle_cases_session import SESSION_CASES
from tests.end_to_end.oracle_model import Case

CASES: tuple[Case, ...] = (
    *SESSION_CASES,
    *FAILURE_CASES,
    *REQUEST_CASES,
    *INPUT_CASES,
    *RESPONSE_CASES,
)
